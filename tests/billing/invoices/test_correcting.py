"""What becomes of final invoices on both databases: void, credited, written again; and credit that is sold."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.billing.invoices import (
    Crediting,
    Invoice,
    TopUp,
    draft_credit_note,
    draft_top_up,
    finalise_checked,
    frozen_document,
    mark_sent,
    reissue_invoice,
    void_invoice,
)
from galerne.billing.payments import NewPayment, record_payment
from galerne.billing.subscriptions import Order, subscribe
from galerne.governance import SYSTEM
from galerne.kernel import BadRequest, Conflict
from galerne.ledger import all_accounts, check_books
from tests.billing.invoices.customers import CLOSING, NOVEMBER, OCTOBER, House, fine

MILLION = 1_000_000


async def balances(house: House) -> dict[str, int]:
    async with house.database.reading() as session:
        assert await check_books(session) == []
        return {each.account.id: each.credit_nano for each in await all_accounts(session) if each.credit_nano}


async def billed(house: House) -> Invoice:
    customer = await house.customer("Nantes SA")
    await house.use(customer, (123_456_789, 1001, 7_654_321))
    await house.close()
    (invoice,) = await house.invoices(customer)
    return invoice


async def credit(house: House, invoice: Invoice, request_id: str = "r", **asked: Any) -> Invoice:
    usual: dict[str, Any] = {"invoice_id": invoice.id, "reason": "outage", "request_id": request_id}
    asking = Crediting(**(usual | asked))
    async with house.database.transaction() as session:
        draft = await draft_credit_note(session, SYSTEM, asking, house.ids, house.clock)
    return await finalise_checked(house.database, SYSTEM, draft.id, fine, house.clock)


async def pay(house: House, invoice: Invoice, amount: int) -> None:
    payment = NewPayment(
        organisation_id=invoice.organisation_id,
        method="bank_transfer",
        reference=house.ids.new(),
        currency="EUR",
        amount_minor=amount,
        received_on=CLOSING.date(),
        invoice_ids=(invoice.id,),
    )
    async with house.database.transaction() as session:
        await record_payment(session, SYSTEM, payment, house.ids, house.clock)


async def one(house: House, invoice_id: str) -> Invoice:
    return next(each for each in await house.invoices() if each.id == invoice_id)


async def test_a_void_invoice_keeps_its_number_and_leaves_nothing_in_the_books(house: House) -> None:
    invoice = await billed(house)
    voided = invoice
    for _ in range(2):
        async with house.database.transaction() as session:
            voided = await void_invoice(session, SYSTEM, invoice.id, "wrong address", house.clock)
    assert (voided.state, voided.number) == ("void", invoice.number)
    assert await balances(house) == {}
    async with house.database.transaction() as session:
        draft = await reissue_invoice(session, SYSTEM, invoice.id, house.ids, house.clock)
    again = await finalise_checked(house.database, SYSTEM, draft.id, fine, house.clock)
    assert (again.number, again.due_minor) == ("FR-2026-000002", invoice.due_minor)
    assert (again.usage_root, again.period) == (invoice.usage_root, "2026-10")


async def test_a_whole_credit_note_takes_the_whole_booking_back(house: House) -> None:
    invoice = await billed(house)
    note = await credit(house, invoice)
    assert (note.kind, note.number, note.due_minor) == ("credit_note", "FR-C-2026-000001", invoice.due_minor)
    assert await balances(house) == {}
    assert (await one(house, invoice.id)).state == "paid"
    async with house.database.reading() as session:
        draft = (await frozen_document(session, SYSTEM, note.id)).document.draft
    assert draft.preceding is not None
    assert draft.preceding.number == invoice.number
    assert await credit(house, invoice) == note


async def test_no_more_is_credited_than_was_invoiced_and_refusals_leave_the_books_as_they_were(house: House) -> None:
    invoice = await billed(house)
    net = invoice.net_minor or 0
    await credit(house, invoice, "a", net_minor=net - 100)
    books, before = await balances(house), await house.invoices()
    for name, asked, error in (
        ("b", {"net_minor": net + 1}, Conflict),
        ("b", {"net_minor": 0}, BadRequest),
        ("b", {}, Conflict),
        ("a", {"net_minor": 7}, Conflict),
        ("b", {"net_minor": 1, "reason": " "}, BadRequest),
    ):
        with pytest.raises(error):
            await credit(house, invoice, name, **asked)
    assert (await balances(house), await house.invoices()) == (books, before)
    with pytest.raises(Conflict, match="more than the"):
        await credit(house, invoice, "c", net_minor=101)
    assert await balances(house) == books
    await credit(house, invoice, "d", net_minor=100)
    left = (await one(house, invoice.id)).open_minor or 0
    assert abs(left) <= 1  # each note's tax is rounded by itself


async def test_an_invoice_on_which_something_was_paid_is_not_voided(house: House) -> None:
    invoice = await billed(house)
    await pay(house, invoice, 1)
    async with house.database.transaction() as session:
        with pytest.raises(Conflict, match="credit note"):
            await void_invoice(session, SYSTEM, invoice.id, "no", house.clock)
        assert (await mark_sent(session, SYSTEM, invoice.id, house.clock)).state == "sent"


async def test_a_top_up_is_granted_once_its_invoice_is_paid_in_full(house: House) -> None:
    customer = await house.customer("Prepaid SARL")
    asked = TopUp(organisation_id=customer, amount_nano=50 * 10**9, currency="EUR", request_id="t")
    async with house.database.transaction() as session:
        draft = await draft_top_up(session, SYSTEM, asked, house.ids, house.clock)
        assert await draft_top_up(session, SYSTEM, asked, house.ids, house.clock) == draft
    async with house.database.transaction() as session:
        with pytest.raises(Conflict) as refusal:
            await draft_top_up(session, SYSTEM, replace(asked, amount_nano=1), house.ids, house.clock)
    assert refusal.value.code == "idempotency_conflict"
    invoice = await finalise_checked(house.database, SYSTEM, draft.id, fine, house.clock)
    assert (invoice.net_minor, invoice.due_minor) == (5000, 6000)
    assert (await balances(house))["deferred_revenue:EUR"] == 50 * 10**9
    await pay(house, invoice, 5999)
    assert f"prepaid:{customer}:EUR" not in await balances(house)
    await pay(house, invoice, 1)
    books = await balances(house)
    assert books == {
        f"prepaid:{customer}:EUR": 50 * 10**9,
        "cash_clearing:EUR": -60 * 10**9,
        "tax_payable:EUR": 10 * 10**9,
    }
    assert (await one(house, invoice.id)).state == "paid"


async def test_a_years_fee_is_earned_month_by_month_and_what_is_left_is_taken_back(house: House) -> None:
    customer = await house.customer("Ada")
    house.clock.current = OCTOBER
    async with house.database.transaction() as session:
        order = Order(plan_id="pro", interval="year", trial=False)
        await subscribe(session, replace(SYSTEM, organisation_id=customer), order, house.ids, house.clock)
    await house.close()
    (invoice,) = await house.invoices(customer)
    net = (invoice.net_minor or 0) * 10**7
    assert (await balances(house))["revenue:EUR"] == round(net * 31 / 365)
    house.clock.current = NOVEMBER + timedelta(days=31)
    for _ in range(2):
        await house.close("2026-11")
    assert (await balances(house))["revenue:EUR"] == round(net * 61 / 365)
    await credit(house, invoice)
    assert await balances(house) == {}
    house.clock.current += timedelta(days=31)
    await house.close("2026-12")
    assert await balances(house) == {}


async def test_the_database_keeps_what_is_final(house: House) -> None:
    invoice = await billed(house)
    for change in (
        "UPDATE invoices SET due_minor = 1",
        "UPDATE invoices SET number = 'FR-2026-000009'",
        "UPDATE invoices SET document = '{}'",
        "DELETE FROM invoices",
        "UPDATE invoice_lines SET quantity = 1",
        "DELETE FROM invoice_events",
        "UPDATE invoice_charges SET nano = 1 WHERE 1 = 1",
    ):
        with pytest.raises(DBAPIError):
            async with house.database.transaction() as session:
                if "charges" in change:
                    row = "INSERT INTO invoice_charges (invoice_id, charge_id, organisation_id, nano)"
                    await session.execute(text(f"{row} VALUES ('{invoice.id}', 'c', 'o', 2)"))
                await session.execute(text(change))
    assert await house.invoices() == [invoice]
