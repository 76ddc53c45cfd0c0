"""Payments on both databases: once, whole, partial and over; refunds within the capture; books that stay sound."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.billing.payments import (
    Allocation,
    NewRefund,
    Payment,
    allocate_payment,
    find_payment,
    list_payments,
    refund_payment,
)
from galerne.billing.payments.payment import Refund, paid_by_invoice, spread, taken_back
from galerne.billing.subscriptions import Order, find_subscription, payment_failed, subscribe
from galerne.governance import ROLE_PERMISSIONS, Role
from galerne.kernel import BadRequest, Conflict, Database, Forbidden, GalerneError, NotFound
from tests.billing.payments.invoiced import Invoiced, invoiced
from tests.identity.tenants import NOW


@pytest.fixture
async def books(database: Database) -> Invoiced:
    return await invoiced(database)


async def refund(books: Invoiced, payment: Payment, minor: int, name: str = "r1", reason: str = "goodwill") -> Payment:
    new = NewRefund(request_id=name, amount_minor=minor, reason=reason)
    async with books.database.transaction() as session:
        return await refund_payment(session, books.operator, payment.id, new, books.tenants.ids, books.tenants.clock)


async def test_a_payment_pays_its_invoice_and_the_ledger(books: Invoiced) -> None:
    invoice = await books.invoice("FR-2026-1")
    assert await books.owed_minor() == 10_000
    paid = await books.pay(10_000, invoice)
    assert (await books.state(invoice), await books.owed_minor(), paid.free_minor) == ("paid", 0, 0)
    assert await books.sound()
    assert (await books.tenants.journal("payment.recorded"))[0]["amount_minor"] == "10000"


async def test_partial_and_over_payments_leave_what_is_open_and_what_is_free(books: Invoiced) -> None:
    first, second = await books.invoice("FR-2026-1"), await books.invoice("FR-2026-2")
    await books.pay(4_000, first)
    assert (await books.state(first), await books.owed_minor()) == ("final", 16_000)
    over = await books.pay(20_000, first, second)
    assert [(each.invoice_id, each.amount_minor) for each in over.allocations] == [(first, 6_000), (second, 10_000)]
    assert (over.free_minor, await books.owed_minor()) == (4_000, -4_000)
    third = await books.invoice("FR-2026-3")
    async with books.database.transaction() as session:
        used = await allocate_payment(session, books.operator, over.id, [third], books.tenants.ids, books.tenants.clock)
    assert (used.free_minor, await books.state(third), await books.owed_minor()) == (0, "final", 6_000)
    with pytest.raises(Conflict) as refused:
        async with books.database.transaction() as session:
            await allocate_payment(session, books.operator, over.id, [third], books.tenants.ids, books.tenants.clock)
    assert refused.value.code == "nothing_free"
    assert await books.sound()


async def test_a_refund_takes_credit_first_then_what_was_paid_last(books: Invoiced) -> None:
    first, second = await books.invoice("FR-2026-1"), await books.invoice("FR-2026-2")
    payment = await books.pay(21_000, first, second)
    after = await refund(books, payment, 3_000)
    assert (after.free_minor, await books.state(second), await books.state(first)) == (0, "final", "paid")
    assert after.allocations[-1].amount_minor == -2_000
    assert await books.owed_minor() == 2_000
    assert (await refund(books, payment, 18_000, "r2")).refunded_minor == 21_000
    assert (await books.state(first), await books.owed_minor()) == ("final", 20_000)
    assert await books.sound()


async def test_a_refund_above_the_capture_is_refused_and_the_books_stay(books: Invoiced) -> None:
    payment = await books.pay(10_000, await books.invoice("FR-2026-1"))
    await refund(books, payment, 4_000)
    before = await books.snapshot()
    with pytest.raises(Conflict) as refused:
        await refund(books, payment, 6_001, "r2")
    assert (refused.value.code, refused.value.param) == ("refund_above_capture", "amount")
    assert await books.snapshot() == before
    with pytest.raises(DBAPIError, match="above what was captured"):
        async with books.database.transaction() as session:
            await session.execute(
                text("INSERT INTO payment_refunds VALUES (:id, 9, 'x', 6001, 'r', '', '2026-11-24 00:00:00+00')"),
                {"id": payment.id},
            )


async def test_two_refunds_at_once_give_back_no_more_than_was_captured(books: Invoiced) -> None:
    payment = await books.pay(10_000)
    wishes = [refund(books, payment, 6_000, f"r{number}") for number in range(3)]
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Conflict", "Conflict", "Payment"]
    assert await books.owed_minor() == -4_000
    assert await books.sound()


async def test_the_same_key_counts_once_and_with_another_body_is_refused(books: Invoiced) -> None:
    invoice = await books.invoice("FR-2026-1")
    first = await books.pay(4_000, invoice, request_id="k", reference="a")
    before = await books.snapshot()
    assert await books.pay(4_000, invoice, request_id="k", reference="a") == first
    wrong: list[dict[str, Any]] = [{"request_id": "k", "reference": "b"}, {"request_id": "j", "reference": "a"}]
    for keys in wrong:
        with pytest.raises(Conflict) as refused:
            await books.pay(4_000, invoice, **keys)
        assert refused.value.code == "idempotency_conflict"
    with pytest.raises(Conflict):
        await books.pay(4_001, invoice, request_id="k", reference="a")
    assert await books.snapshot() == before
    again = await refund(books, first, 1_000)
    assert await refund(books, first, 1_000) == again
    with pytest.raises(Conflict) as other:
        await refund(books, first, 999)
    assert other.value.code == "idempotency_conflict"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"currency": "USD"}, BadRequest),
        ({"amount_minor": 0}, BadRequest),
        ({"amount_minor": -1}, BadRequest),
        ({"reference": ""}, BadRequest),
        ({"reference": "a\nb"}, BadRequest),
        ({"organisation_id": "nobody"}, NotFound),
        ({"invoice_ids": ("unheard-of",)}, NotFound),
    ],
)
async def test_what_cannot_be_a_payment_is_refused_and_the_books_stay(
    books: Invoiced, changes: dict[str, Any], error: type[GalerneError]
) -> None:
    invoice = await books.invoice("FR-2026-1")
    before = await books.snapshot()
    fields: dict[str, Any] = {"invoice_ids": (invoice,), "amount_minor": 10} | changes
    with pytest.raises(error):
        await books.pay(fields.pop("amount_minor"), **fields)
    assert await books.snapshot() == before


async def test_nobody_pays_anothers_invoice_or_sees_anothers_payment(books: Invoiced) -> None:
    foreign = await books.invoice("FR-2026-1", owner=books.operator.organisation_id)
    with pytest.raises(NotFound):
        await books.pay(10, foreign)
    payment = await books.pay(10)
    async with books.database.reading() as session:
        assert await list_payments(session, books.operator.organisation_id) == []
        assert [each.id for each in await list_payments(session, books.organisation_id)] == [payment.id]
        with pytest.raises(NotFound):
            await find_payment(session, payment.id, books.operator.organisation_id)


async def test_a_customer_cannot_say_that_it_paid(books: Invoiced) -> None:
    own = replace(books.tenants.stranger, permissions=ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN])
    books.operator = own
    with pytest.raises(Forbidden):
        await books.pay(10)


async def test_a_payment_ends_the_dunning_of_its_subscription(books: Invoiced) -> None:
    tenants, invoice = books.tenants, await books.invoice("FR-2026-1")
    order = Order(plan_id="pro", interval="month", currency="EUR", trial=False)
    async with tenants.database.transaction() as session:
        started = await subscribe(session, tenants.stranger, order, tenants.ids, tenants.clock)
    async with tenants.database.transaction() as session:
        await payment_failed(session, started.id, invoice, "a1", tenants.ids, tenants.clock)
    await books.pay(9_999, invoice)
    async with tenants.database.reading() as session:
        assert (await find_subscription(session, books.organisation_id)).status == "past_due"
    await books.pay(1, invoice)
    async with tenants.database.reading() as session:
        assert (await find_subscription(session, books.organisation_id)).status == "active"


@given(st.lists(st.integers(1, 50), max_size=5), st.integers(1, 200), st.lists(st.integers(1, 60), max_size=6))
def test_what_is_spread_and_taken_back_adds_up(dues: list[int], captured: int, refunds: list[int]) -> None:
    open_minor = {f"i{number}": due for number, due in enumerate(dues)}
    parts = spread(captured, list(open_minor.items()))
    assert sum(part for _, part in parts) == min(captured, sum(dues))
    allocations = [Allocation(name, part, NOW) for name, part in parts]
    given_back: list[Refund] = []
    for number, wanted in enumerate(refunds):
        payment = Payment(
            id="p",
            organisation_id="o",
            method="other",
            reference="r",
            currency="EUR",
            amount_minor=captured,
            received_on=NOW.date(),
            allocations=tuple(allocations),
            refunds=tuple(given_back),
            created_at=NOW,
        )
        if wanted > captured - payment.refunded_minor:
            with pytest.raises(Conflict):
                taken_back(payment, wanted)
            continue
        back = taken_back(payment, wanted)
        assert sum(part for _, part in back) == max(0, wanted - payment.free_minor)
        allocations += [Allocation(name, -part, NOW) for name, part in back]
        given_back.append(Refund(request_id=str(number), amount_minor=wanted, reason="r", reference="", at=NOW))
        left = captured - sum(each.amount_minor for each in given_back)
        held = paid_by_invoice(allocations)
        assert all(0 < part <= open_minor[name] for name, part in held.items())
        assert sum(held.values()) <= left
