"""Invoices of every sort that customers get are proved as they are: credit, contracts, volume, re-rating, notes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from galerne.billing import (
    Match,
    NewRate,
    PriceChange,
    Step,
    change_prices,
    preview_rerating,
    rerate_unmatched,
)
from galerne.billing.contracts import Commitment, ContractTerms, Instalment
from galerne.billing.invoices import Crediting, Invoice, draft_credit_note, finalise_checked
from galerne.billing.proof import Checked
from galerne.billing.subscriptions import Order, subscribe
from galerne.governance import SYSTEM
from galerne.kernel import Ids
from galerne.models import ExternalModel, add_external
from tests.billing.invoice_usage.houses import NOVEMBER_3, Installation, checked, said
from tests.billing.invoice_usage.test_making import DAYS
from tests.billing.invoices.customers import NOVEMBER, OCTOBER, fine
from tests.billing.rating.rerating import rate_again

MILLION = 1_000_000
EARLY_IN_DECEMBER = NOVEMBER + timedelta(days=31)


async def proved(served: Installation, invoices: Sequence[Invoice]) -> list[Checked]:
    keys = await served.sign()
    found = [checked(await served.proof(each.id), keys) for each in invoices]
    assert [said(each) for each in found] == [[] for _ in invoices]
    return found


async def prices(served: Installation, *rates: NewRate) -> None:
    async with served.house.database.transaction() as session:
        await change_prices(session, SYSTEM, PriceChange(rates=rates), Ids(), served.house.clock)


async def test_a_price_that_falls_with_volume_over_two_months(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    steps = (Step(above=MILLION, nano=300_000_007), Step(above=2 * MILLION, nano=100_000_003))
    for token_class, mode in (("input", "graduated"), ("output", "volume")):
        match = Match(token_class=token_class, model_id="large")  # type: ignore[arg-type]  # two of them
        rate = NewRate(match=match, currency="EUR", nano=400_000_009, volume=mode, steps=steps)  # type: ignore[arg-type]
        await prices(served, rate)
    await served.serve(own, (1_500_000, 0, 900_001), (7, 3, 150_000), (800_123, 1, 1))
    await served.house.close()
    await served.serve(own, (400_000, 0, 1_000_000))  # of October too: on the tiers that October has reached
    await served.serve(own, (1_000_001, 0, 1), at=NOVEMBER)
    served.house.clock.current = EARLY_IN_DECEMBER
    await served.house.close("2026-11")
    found = await proved(served, await served.house.invoices(own))
    assert [(each.requests, each.late) for each in found] == [(3, 0), (2, 1)]


async def test_a_month_that_was_rated_again_is_billed_as_the_difference(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    await served.serve(own, *DAYS)
    await served.serve(own, *DAYS, tier="priority")
    await served.house.close()
    served.house.clock.current = NOVEMBER_3
    match = Match(token_class="input", model_id="large")
    rate = NewRate(match=match, currency="EUR", nano=500_000_001, effective_from=OCTOBER)
    change = PriceChange(rates=(rate,), retroactive=True)
    async with served.house.database.transaction() as session:
        digest = (await preview_rerating(session, change, served.house.clock)).digest
        await rate_again(session, change, digest, Ids(), served.house.clock)
    await served.serve(own, *DAYS, at=NOVEMBER_3)
    served.house.clock.current = EARLY_IN_DECEMBER
    await served.house.close("2026-11")
    found = await proved(served, await served.house.invoices(own))
    assert found[1].late > 0


async def test_what_had_no_price_in_its_month_is_billed_and_proved_once_it_has_one(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    async with served.house.database.transaction() as session:
        clock = served.house.clock
        await add_external(session, SYSTEM, ExternalModel(name="small", url="http://127.0.0.1:9/v1"), clock)
    await served.serve(own, *DAYS)
    await served.serve(own, *DAYS, model="small")
    await served.house.close(allow_unmatched=True)
    match, since = Match(token_class="input", model_id="small"), OCTOBER
    rates = [NewRate(match=match, currency="EUR", nano=5_000_001, effective_from=since)]
    rates.append(replace(rates[0], match=replace(match, token_class="output"), nano=7_000_003))
    change = PriceChange(rates=tuple(rates), retroactive=True)
    async with served.house.database.transaction() as session:
        digest = (await preview_rerating(session, change, clock)).digest
        await rate_again(session, change, digest, Ids(), clock)
        await rerate_unmatched(session, clock)
    await served.serve(own, (3 * MILLION, 0, 0), at=NOVEMBER_3)
    clock.current = EARLY_IN_DECEMBER
    await served.house.close("2026-11")
    found = await proved(served, await served.house.invoices(own))
    assert [(each.requests, each.late) for each in found] == [(5, 0), (6, 5)]


async def test_usage_that_credit_or_a_commitment_has_paid(served: Installation) -> None:
    own, bank = await served.house.customer("Prepaid"), await served.house.customer("Bank")
    await served.house.grant(own, 10**10)
    names = await served.serve(own, (1_234_567, 0, 7), (MILLION, 0, 0))
    await served.house.settle(own, {names[0]: 1_234_567 * 400 + 7 * 1600, names[1]: MILLION * 400})
    served.house.clock.current = OCTOBER
    async with served.house.database.transaction() as session:
        buyer = replace(SYSTEM, organisation_id=own)
        await subscribe(session, buyer, Order(plan_id="pro", trial=False), served.house.ids, served.house.clock)
    commitment = Commitment(
        id="year",
        kind="prepaid",
        nano=2 * 10**9,
        start=OCTOBER,
        end=OCTOBER.replace(year=2027),
        instalments=(Instalment(due_at=OCTOBER, nano=2 * 10**9),),
    )
    terms = ContractTerms(currency="EUR", start=OCTOBER, months=12, commitments=(commitment,), overage_ppm=1_500_000)
    await served.house.contract(bank, terms)
    await served.serve(bank, (8 * MILLION, 0, 0))
    await served.house.close()
    found = await proved(served, await served.house.invoices())
    assert sorted(each.requests for each in found) == [1, 2]


async def test_a_credit_note_is_proved_without_requests(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    await served.serve(own, (9 * MILLION, 0, 0))
    await served.house.close()
    (invoice,) = await served.house.invoices(own)
    clock = served.house.clock
    async with served.house.database.transaction() as session:
        asked = Crediting(invoice_id=invoice.id, reason="slow", request_id="1")
        note = await draft_credit_note(session, SYSTEM, asked, Ids(), clock)
    await finalise_checked(served.house.database, SYSTEM, note.id, fine, clock)
    found = await proved(served, await served.house.invoices(own))
    assert sorted(each.requests for each in found) == [0, 1]
