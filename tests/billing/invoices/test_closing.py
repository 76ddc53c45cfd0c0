"""Closing a month on both databases: who is billed what, once, with books that add up."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from galerne.billing import (
    Match,
    NewRate,
    PriceChange,
    TokenClass,
    change_prices,
    correct_usage,
    rate_batch,
)
from galerne.billing.contracts import Commitment, ContractTerms, Instalment
from galerne.billing.documents.validation import Finding
from galerne.billing.invoices import (
    BillingProfile,
    CloseOrder,
    close_billing,
    frozen_document,
    preview_close,
    rated_leaves,
    set_profile,
)
from galerne.billing.subscriptions import Order, subscribe
from galerne.governance import SYSTEM
from galerne.identity import NewOrganisation, create_organisation
from galerne.journal import LeafFilter, hash_leaf, read_all
from galerne.kernel import Conflict, run_in_session
from galerne.ledger import Posting, all_accounts, check_books, post_script
from galerne.models import ExternalModel, add_external
from tests.billing.invoices.customers import NANTES, NOVEMBER, OCTOBER, House
from tests.journal.trees import Tree

MILLION = 1_000_000
CLASSES: tuple[TokenClass, ...] = ("input", "cached", "output")


async def balances(house: House) -> dict[str, int]:
    async with house.database.reading() as session:
        assert await check_books(session) == []
        return {each.account.id: each.credit_nano for each in await all_accounts(session) if each.credit_nano}


async def test_usage_becomes_lines_that_recompute_and_books_that_add_up(house: House) -> None:
    customer = await house.customer("Nantes SA")
    await house.use(customer, (123_456, 7, 7_891), (3 * MILLION, 0, MILLION))
    report = await house.close()
    assert (report.invoices, report.refused, report.unbilled) == (1, {}, [])
    (invoice,) = await house.invoices(customer)
    assert (invoice.state, invoice.number, invoice.period) == ("final", "FR-2026-000001", "2026-10")
    lines = await house.lines(invoice.id)
    assert [(line.quantity, line.price, line.base_quantity) for line in lines] == [
        (7, "0.04", MILLION),
        (3_123_456, "0.4", MILLION),
        (1_007_891, "1.6", MILLION),
    ]
    net = round(3_123_456 * 0.4 / 1e4) + round(1_007_891 * 1.6 / 1e4)
    assert (invoice.net_minor, invoice.tax_minor) == (net, round(net * 0.2))
    exact = sum(line.exact_nano for line in lines)
    assert exact == 3_123_456 * 400 + 7 * 40 + 1_007_891 * 1600
    found = await balances(house)
    assert found == {
        f"receivable:{customer}:EUR": -(invoice.due_minor or 0) * 10**7,
        "revenue:EUR": exact,
        "tax_payable:EUR": (invoice.tax_minor or 0) * 10**7,
        "rounding:EUR": net * 10**7 - exact,
    }


async def test_closing_again_changes_nothing(house: House) -> None:
    for number in range(3):
        await house.use(await house.customer(f"c{number}"), (MILLION, 0, MILLION))
    await house.close()
    before, books = await house.invoices(), await balances(house)
    house.clock.current += timedelta(days=3)
    again = await house.close()
    assert (again.invoices, await house.invoices(), await balances(house)) == (3, before, books)
    assert [each.number for each in before] == [f"FR-2026-00000{number}" for number in (1, 2, 3)]


async def test_an_invoice_has_the_root_over_its_usage_and_its_leaves_come_again(house: House) -> None:
    customer = await house.customer("Nantes SA")
    await house.use(customer, *[(1000 + number, number, 50_000) for number in range(7)])
    await house.close()
    (invoice,) = await house.invoices(customer)
    async with house.database.reading() as session:
        leaves = [leaf async for page in rated_leaves(session, customer, "2026-10") for leaf in page]
        frozen = await frozen_document(session, SYSTEM, invoice.id)
    assert invoice.usage_size == len(leaves) == 3 * 7 - 1
    assert invoice.usage_root == Tree(hash_leaf(leaf.encoded()) for leaf in leaves).root()
    assert (frozen.usage_root, frozen.usage_size) == (invoice.usage_root.hex(), 20)
    assert invoice.usage_root.hex() in frozen.document.draft.notes[0]
    assert sum(leaf.nano for leaf in leaves) == sum(line.exact_nano for line in await house.lines(invoice.id))


async def test_usage_that_credit_paid_is_shown_and_leaves_nothing_to_pay_and_no_number(house: House) -> None:
    customer = await house.customer("Prepaid SARL")
    await house.grant(customer, 10**10)
    (name,) = await house.use(customer, (1_234_567, 0, 7))
    cost = 1_234_567 * 400 + 7 * 1600
    await house.settle(customer, {name: cost})
    before = await balances(house)
    report = await house.close()
    assert (report.invoices, report.empty) == (0, 1)
    (invoice,) = await house.invoices(customer)
    assert (invoice.state, invoice.number, invoice.net_minor) == ("empty", None, 0)
    assert [line.kind for line in await house.lines(invoice.id)] == ["usage", "usage", "paid_by_credit"]
    assert await balances(house) == before


async def test_a_plan_with_tax_in_its_price_costs_exactly_that(house: House) -> None:
    customer = await house.customer("Ada", is_business=False)
    async with house.database.transaction() as session:
        actor = replace(SYSTEM, organisation_id=customer)
        house.clock.current = OCTOBER
        await subscribe(session, actor, Order(plan_id="pro", trial=False), house.ids, house.clock)
    await house.close()
    (invoice,) = await house.invoices(customer)
    assert invoice.due_minor == 1499
    assert (invoice.net_minor, invoice.tax_minor) == (1249, 250)
    assert "deferred_revenue:EUR" not in await balances(house)


async def test_a_commitment_is_billed_once_and_covers_usage_before_anything_is_owed(house: House) -> None:
    customer = await house.customer("Banque")
    commitment = Commitment(
        id="year",
        kind="prepaid",
        nano=2 * 10**9,
        start=OCTOBER,
        end=OCTOBER.replace(year=2027),
        instalments=(Instalment(due_at=OCTOBER, nano=2 * 10**9),),
    )
    terms = ContractTerms(
        currency="EUR", start=OCTOBER, months=12, commitments=(commitment,), overage_ppm=1_500_000, fee_nano=10**9
    )
    await house.contract(customer, terms)
    await house.use(customer, (2 * MILLION, 0, 0))
    await house.close()
    (first,) = await house.invoices(customer)
    assert (first.net_minor, first.state) == (300, "final")
    assert [line.kind for line in await house.lines(first.id)] == ["usage", "covered", "recurring", "commitment"]
    assert (await balances(house))["deferred_revenue:EUR"] == 12 * 10**8
    await house.use(customer, (4 * MILLION, 0, 0), at=NOVEMBER)
    house.clock.current = NOVEMBER + timedelta(days=31)
    await house.close("2026-11")
    second = (await house.invoices(customer))[1]
    # 1.60 used of which 1.20 are left of the commitment; 0.40 beyond it costs half as much again; and the fee.
    assert second.net_minor == 160
    books = await balances(house)
    assert "deferred_revenue:EUR" not in books
    assert books["revenue:EUR"] == (300 + 160) * 10**7


async def test_a_month_that_has_not_ended_is_not_closed_unless_told_until_when(house: House) -> None:
    customer = await house.customer("c")
    house.clock.current = OCTOBER + timedelta(days=10)
    await house.use(customer, (MILLION, 0, 0), at=OCTOBER)
    for order in ({}, {"until": NOVEMBER}, {"until": OCTOBER}, {"until": NOVEMBER + timedelta(days=1)}):
        with pytest.raises(Conflict) as refusal:
            await early(house, **order)
        assert refusal.value.code == "period_open"
    assert (await house.invoices(), await balances(house)) == ([], {})
    await early(house, until=OCTOBER + timedelta(days=9))
    assert [each.number for each in await house.invoices()] == ["FR-2026-000001"]


async def early(house: House, **order: Any) -> None:
    await close_billing(house.database, SYSTEM, CloseOrder(period="2026-10", **order), house.parts())


async def test_usage_without_a_price_blocks_closing_or_is_left_for_later_and_never_lost(house: House) -> None:
    customer = await house.customer("c")
    await house.use(customer, (MILLION, 0, 0), at=OCTOBER - timedelta(days=40))
    await house.use(customer, (2 * MILLION, 0, 0))
    with pytest.raises(Conflict, match="1 requests") as refusal:
        await house.close()
    assert refusal.value.code == "unmatched_usage"
    assert await house.invoices() == []
    assert (await house.close(allow_unmatched=True)).unmatched == 1
    (invoice,) = await house.invoices()
    assert invoice.net_minor == 80


async def test_late_usage_is_billed_in_the_next_month(house: House) -> None:
    customer = await house.customer("c")
    await house.use(customer, (MILLION, 0, 0))
    await house.close()
    await house.use(customer, (MILLION, 0, 0), at=OCTOBER + timedelta(days=3))
    house.clock.current = NOVEMBER + timedelta(days=31)
    async with house.database.transaction() as session:
        assert (await rate_batch(session, house.clock, "")).late == 1
    await house.close("2026-11")
    october, november = await house.invoices()
    assert (october.net_minor, november.net_minor) == (40, 40)
    (line,) = await house.lines(november.id)
    assert (line.starts_at, november.usage_size) == (OCTOBER, 1)


async def test_who_has_no_billing_profile_is_named_and_billed_once_there_is_one(house: House) -> None:
    async with house.database.transaction() as session:
        organisation, _ = await create_organisation(session, NewOrganisation(name="n"), house.ids, house.clock)
    await house.use(organisation.id, (MILLION, 0, 0))
    assert (await house.close()).unbilled == [organisation.id]
    assert await house.invoices() == []
    async with house.database.transaction() as session:
        profile = BillingProfile(
            organisation_id=organisation.id, issuer_id="fr", name="n", address=NANTES, is_business=True
        )
        await set_profile(session, SYSTEM, profile, house.clock)
    assert (await house.close()).invoices == 1


async def test_a_document_that_breaks_a_rule_stays_a_draft_without_a_number(house: House) -> None:
    customer, other = await house.customer("broken"), await house.customer("fine")
    for each in (customer, other):
        await house.use(each, (MILLION, 0, 0))

    def strict(xml: bytes) -> list[Finding]:
        return [Finding("BR-99", "/", "is wrong", "fatal")] if b"broken" in xml else []

    report = await house.close(parts=house.parts(check=strict))
    assert "BR-99: is wrong" in report.refused[customer]
    states = {each.organisation_id: (each.state, each.number) for each in await house.invoices()}
    assert states == {customer: ("draft", None), other: ("final", "FR-2026-000001")}
    assert (await house.close()).is_done
    assert {each.number for each in await house.invoices()} == {"FR-2026-000001", "FR-2026-000002"}


async def test_a_preview_shows_the_drafts_and_writes_nothing(house: House) -> None:
    customer = await house.customer("c")
    await house.use(customer, (MILLION, 0, 0))
    async with house.database.transaction() as session:
        await rate_batch(session, house.clock, "")
    drafts = [draft async for draft in preview_close(house.database, CloseOrder(period="2026-10"))]
    assert [(draft.organisation_id, draft.currency, len(draft.lines)) for draft in drafts] == [(customer, "EUR", 1)]
    assert await house.invoices() == []


async def test_every_step_leaves_an_entry_in_the_customers_journal(house: House) -> None:
    customer = await house.customer("c")
    await house.use(customer, (MILLION, 0, 0))
    await house.close()
    (invoice,) = await house.invoices()
    async with house.database.reading() as session:
        leaves = await read_all(session, LeafFilter(oldest_first=True), 100)
    mine = [leaf for leaf in leaves if leaf.resource == f"invoice:{invoice.id}"]
    assert [(leaf.action, leaf.organisation_id) for leaf in mine] == [
        ("invoice.drafted", customer),
        ("invoice.finalised", customer),
    ]
    assert (mine[1].detail["number"], mine[1].detail["sha256"]) == (invoice.number, invoice.sha256)


async def test_what_credit_paid_comes_off_however_it_was_paid_and_whatever_became_of_the_request(house: House) -> None:
    customer = await house.customer("Prepaid SARL")
    await house.grant(customer, 10**10)
    settled, posted, voided = await house.use(customer, *[(MILLION, 0, 0)] * 3)
    (unpriced,) = await house.use(customer, (MILLION, 0, 0), model="small")
    cost = 400_000_000
    await house.settle(customer, {settled: cost, voided: cost, unpriced: cost})
    async with house.database.transaction() as session:  # its hold was gone
        sides = (f"prepaid:{customer}:EUR", "revenue:EUR")
        await run_in_session(
            session, post_script(Posting(posted, *sides, cost, house.clock.now(), "the hold was gone"))
        )
        await rate_batch(session, house.clock, after="")
        await correct_usage(session, SYSTEM, voided, None, "a test of ours", house.clock)
    await house.close(allow_unmatched=True)
    async with house.database.transaction() as session:
        await add_external(session, SYSTEM, ExternalModel(name="small", url="http://127.0.0.1:9/v1"), house.clock)
        rates = [
            NewRate(match=Match(token_class=kind, model_id="small"), currency="EUR", nano=cost, effective_from=OCTOBER)
            for kind in CLASSES
        ]
        change = PriceChange(retroactive=True, rates=tuple(rates))
        await change_prices(session, SYSTEM, change, house.ids, house.clock)
    house.clock.current = NOVEMBER + timedelta(days=31)
    await house.close("2026-11")
    october, november = await house.invoices(customer)
    # What was voided is given back; what was paid before it had a price is not billed again.
    assert (october.state, october.net_minor) == ("empty", -40)
    assert (november.state, november.net_minor) == ("empty", -40)
    kinds = [(line.kind, line.exact_nano) for line in await house.lines(november.id)]
    assert kinds == [("usage", cost), ("paid_by_credit", -cost), ("carried", -cost)]
