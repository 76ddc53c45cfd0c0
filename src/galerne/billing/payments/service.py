"""Use cases of payments: money that came in, which invoices it pays, and what is given back. None of them commits.

What came in is debited to the clearing of cash and credited to what the customer owes; a refund is the reverse. Which
invoices a payment pays moves no money: what is left of it is the customer's credit until it pays one, or goes back.

Locks are taken in one order: the payment, invoices, the ledger's accounts, the subscription, the journal.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.documents.amounts import decimals_of
from galerne.billing.invoices.lifecycle import Course
from galerne.billing.invoices.tables import InvoiceRow
from galerne.billing.invoices.top_ups import grant_paid_top_up
from galerne.billing.payments.paid_invoices import courses_of, happen, lock_invoices, paid
from galerne.billing.payments.payment import (
    Allocation,
    Method,
    NewPayment,
    NewRefund,
    Payment,
    Refund,
    spread,
    taken_back,
)
from galerne.billing.payments.tables import PaymentAllocationRow, PaymentRefundRow, PaymentRow
from galerne.billing.subscriptions import find_subscription, payment_received
from galerne.governance import Actor, Permission, require
from galerne.identity import find_organisation
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Ids, NotFound, run_in_session
from galerne.ledger import (
    Account,
    AccountKind,
    Posting,
    house_account,
    lock_accounts_script,
    open_account_script,
    organisation_account,
    post_script,
)

_NANO_DIGITS = 9


async def record_payment(session: AsyncSession, actor: Actor, new: NewPayment, ids: Ids, clock: Clock) -> Payment:
    """The payment, recorded, posted and allocated to its invoices in their order; journalled.

    Recorded before with the same content it changes nothing; `Conflict` (`idempotency_conflict`) when its reference or
    request id stands for something else. `NotFound` for an invoice that is not that customer's, `BadRequest` for one
    in another currency.
    """
    require(actor, Permission.PAYMENTS_MANAGE)
    asked = _asked(new)
    earlier = await _earlier(session, new)
    if earlier is not None:
        if earlier.asked != asked:
            raise Conflict("This payment is recorded with other content.", code="idempotency_conflict")
        return await find_payment(session, earlier.id)
    await find_organisation(session, new.organisation_id)
    row = PaymentRow(
        id=ids.new(),
        organisation_id=new.organisation_id,
        method=new.method,
        reference=new.reference,
        currency=new.currency,
        amount_minor=new.amount_minor,
        received_on=new.received_on,
        payer_iban=new.payer_iban,
        request_id=new.request_id,
        asked=asked,
        created_at=clock.now(),
    )
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise Conflict("This payment is being recorded by somebody else.", code="idempotency_conflict") from None
    invoices = await lock_invoices(session, new.invoice_ids)
    _check_invoices(row, invoices.values())
    courses = await courses_of(session, new.invoice_ids)
    dues = [(each, _open(courses[each])) for each in dict.fromkeys(new.invoice_ids)]
    await _lock_accounts(session, row, clock)
    await _allocate(session, actor, row, spread(new.amount_minor, dues), ids, clock)
    await _post(session, row, new.amount_minor, f"payment:{row.id}", clock)
    await append(session, [_entry("recorded", actor, row, new.amount_minor, clock)])
    return await find_payment(session, row.id)


async def allocate_payment(
    session: AsyncSession, actor: Actor, payment_id: str, invoice_ids: Sequence[str], ids: Ids, clock: Clock
) -> Payment:
    """The payment after what is free of it paid these invoices, in their order; no money moves; journalled.

    `Conflict` (`nothing_free`) if all of it is used; other errors as `record_payment`.
    """
    require(actor, Permission.PAYMENTS_MANAGE)
    row = await _lock(session, payment_id)
    before = await find_payment(session, payment_id)
    invoices = await lock_invoices(session, invoice_ids)
    _check_invoices(row, invoices.values())
    courses = await courses_of(session, invoice_ids)
    parts = spread(before.free_minor, [(each, _open(courses[each])) for each in dict.fromkeys(invoice_ids)])
    if not parts:
        raise Conflict("Nothing of this payment is free, or nothing of these invoices open.", code="nothing_free")
    await _allocate(session, actor, row, parts, ids, clock)
    await append(session, [_entry("allocated", actor, row, sum(part for _, part in parts), clock)])
    return await find_payment(session, payment_id)


async def refund_payment(
    session: AsyncSession, actor: Actor, payment_id: str, new: NewRefund, ids: Ids, clock: Clock
) -> Payment:
    """The payment after so much of it was given back: of its free part first, then of what it paid last; journalled.

    The same wish again changes nothing, another under its id is a `Conflict` (`idempotency_conflict`). `Conflict`
    (`refund_above_capture`) for more than is left of it, and nothing changes.
    """
    require(actor, Permission.PAYMENTS_MANAGE)
    row = await _lock(session, payment_id)
    before = await find_payment(session, payment_id)
    for each in before.refunds:
        if each.request_id == new.request_id:
            if (each.amount_minor, each.reason) != (new.amount_minor, new.reason):
                raise Conflict("This request id was used for another refund.", code="idempotency_conflict")
            return before
    parts = [(invoice_id, -part) for invoice_id, part in taken_back(before, new.amount_minor)]
    await lock_invoices(session, [invoice_id for invoice_id, _ in parts])
    await _lock_accounts(session, row, clock)
    seq = len(before.refunds) + 1
    session.add(PaymentRefundRow(payment_id=payment_id, seq=seq, at=clock.now(), **asdict(new)))
    await session.flush()
    await _allocate(session, actor, row, parts, ids, clock)
    await _post(session, row, -new.amount_minor, f"refund:{payment_id}:{seq}", clock)
    await append(session, [_entry("refunded", actor, row, new.amount_minor, clock)])
    return await find_payment(session, payment_id)


async def find_payment(session: AsyncSession, payment_id: str, organisation_id: str | None = None) -> Payment:
    """The payment; `NotFound` for one that is not there, or not of the organisation that is named."""
    row = await session.get(PaymentRow, payment_id)
    if row is None or organisation_id not in (None, row.organisation_id):
        raise NotFound("There is no such payment.", code="payment_not_found")
    return (await _payments(session, [row]))[0]


async def list_payments(
    session: AsyncSession, organisation_id: str | None, limit: int = 100, after: str | None = None
) -> list[Payment]:
    """An organisation's payments, newest first, those before the payment `after`; None: of all, for the operator."""
    row = PaymentRow
    query = select(row).order_by(row.id.desc()).limit(limit)
    if organisation_id is not None:
        query = query.where(row.organisation_id == organisation_id)
    if after is not None:
        query = query.where(row.id < after)
    return await _payments(session, list(await session.scalars(query)))


def receivable(organisation_id: str, currency: str) -> Account:
    """The account of what an organisation owes the house; below nothing, it is the customer's credit."""
    return organisation_account(AccountKind.RECEIVABLE, organisation_id, currency)


async def _payments(session: AsyncSession, rows: Sequence[PaymentRow]) -> list[Payment]:
    names = [row.id for row in rows]
    parts, refunds = PaymentAllocationRow, PaymentRefundRow
    allocated: dict[str, list[Allocation]] = {name: [] for name in names}
    given_back: dict[str, list[Refund]] = {name: [] for name in names}
    found = await session.scalars(
        select(parts).where(parts.payment_id.in_(names)).order_by(parts.payment_id, parts.seq)
    )
    for part in found:
        allocated[part.payment_id].append(Allocation(part.invoice_id, part.amount_minor, part.at))
    query = select(refunds).where(refunds.payment_id.in_(names)).order_by(refunds.payment_id, refunds.seq)
    same = ("request_id", "amount_minor", "reason", "reference", "at")
    for refund in await session.scalars(query):
        given_back[refund.payment_id].append(Refund(**{name: getattr(refund, name) for name in same}))
    return [
        Payment(
            id=row.id,
            organisation_id=row.organisation_id,
            method=cast(Method, row.method),
            reference=row.reference,
            currency=row.currency,
            amount_minor=row.amount_minor,
            received_on=row.received_on,
            allocations=tuple(allocated[row.id]),
            refunds=tuple(given_back[row.id]),
            created_at=row.created_at,
        )
        for row in rows
    ]


async def _allocate(
    session: AsyncSession, actor: Actor, row: PaymentRow, parts: Sequence[tuple[str, int]], ids: Ids, clock: Clock
) -> None:
    column = PaymentAllocationRow.seq
    last = await session.scalar(select(func.max(column)).where(PaymentAllocationRow.payment_id == row.id)) or 0
    invoices, now = await lock_invoices(session, [name for name, _ in parts]), clock.now()
    for seq, (invoice_id, part) in enumerate(parts, last + 1):
        session.add(PaymentAllocationRow(payment_id=row.id, seq=seq, invoice_id=invoice_id, amount_minor=part, at=now))
        course = await happen(session, invoices[invoice_id], paid(part, f"{row.id}:{seq}", now), actor)
        if part > 0 and course.state == "paid":
            await _tell_subscription(session, row.organisation_id, invoice_id, ids, clock)
            await grant_paid_top_up(session, actor, invoices[invoice_id], clock)


async def _tell_subscription(
    session: AsyncSession, organisation_id: str, invoice_id: str, ids: Ids, clock: Clock
) -> None:
    with suppress(NotFound):  # who has no subscription has none that was past due
        subscription = await find_subscription(session, organisation_id)
        if any(each.invoice_id == invoice_id for each in subscription.unpaid):
            await payment_received(session, subscription.id, invoice_id, ids, clock)


async def _lock(session: AsyncSession, payment_id: str) -> PaymentRow:
    row = await session.scalar(select(PaymentRow).where(PaymentRow.id == payment_id).with_for_update())
    if row is None:
        raise NotFound("There is no such payment.", code="payment_not_found")
    return row


async def _lock_accounts(session: AsyncSession, row: PaymentRow, clock: Clock) -> None:
    accounts = (
        house_account(AccountKind.CASH_CLEARING, row.currency),
        receivable(row.organisation_id, row.currency),
    )
    for account in accounts:
        await run_in_session(session, open_account_script(account, clock.now()))
    await run_in_session(session, lock_accounts_script([account.id for account in accounts]))


async def _post(session: AsyncSession, row: PaymentRow, amount_minor: int, reference: str, clock: Clock) -> None:
    cash = house_account(AccountKind.CASH_CLEARING, row.currency).id
    owed = receivable(row.organisation_id, row.currency).id
    debit, credit = (cash, owed) if amount_minor > 0 else (owed, cash)
    nano = abs(amount_minor) * 10 ** (_NANO_DIGITS - decimals_of(row.currency))
    await run_in_session(session, post_script(Posting(reference, debit, credit, nano, clock.now(), row.method)))


async def _earlier(session: AsyncSession, new: NewPayment) -> PaymentRow | None:
    row = PaymentRow
    same = (row.method == new.method) & (row.reference == new.reference)
    if new.request_id is not None:
        same |= (row.organisation_id == new.organisation_id) & (row.request_id == new.request_id)
    return await session.scalar(select(row).where(same).order_by(row.id).limit(1))


def _open(course: Course) -> int:
    """What can still be paid of an invoice: nothing of a draft, or of one that is void."""
    return course.open_minor if course.state in ("final", "sent") else 0


def _check_invoices(row: PaymentRow, invoices: Iterable[InvoiceRow]) -> None:
    for invoice in invoices:
        if invoice.organisation_id != row.organisation_id:
            raise NotFound(
                f"There is no invoice '{invoice.id}' of this customer.", code="invoice_not_found", param="invoice_ids"
            )
        if invoice.currency != row.currency:
            raise BadRequest(
                f"The payment is in {row.currency}, the invoice {invoice.number} in {invoice.currency}: "
                "what was posted in one currency is not converted.",
                code="currency_changed",
                param="currency",
            )


def _asked(new: NewPayment) -> dict[str, Any]:
    return asdict(new) | {"received_on": new.received_on.isoformat(), "invoice_ids": list(new.invoice_ids)}


def _entry(action: str, actor: Actor, row: PaymentRow, amount_minor: int, clock: Clock) -> Entry:
    detail = {
        "organisation_id": row.organisation_id,
        "method": row.method,
        "amount_minor": str(amount_minor),
        "currency": row.currency,
    }
    return Entry(
        action=f"payment.{action}",
        actor=actor,
        resource=f"payment:{row.id}",
        outcome="done",
        at=clock.now(),
        detail=dict(detail),
    )
