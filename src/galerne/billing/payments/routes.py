"""HTTP for payments: customers see their own; recording, giving back and importing statements are the operator's."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from galerne.billing.payments import bank, service
from galerne.billing.payments.camt053 import read_camt053
from galerne.billing.payments.schemas import (
    AllocateIn,
    AssignIn,
    ImportOut,
    PaymentIn,
    PaymentList,
    PaymentOut,
    RefundIn,
    WaitingList,
    WaitingOut,
    import_fields,
    payment_fields,
    waiting_fields,
)
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import BadRequest
from galerne.kernel.web import Reading, RequestClock, RequestIds, Text, Transaction

router = APIRouter(prefix="/v1", tags=["Payments"])

BillingReader = Annotated[Actor, requires(Permission.BILLING_READ, whole_organisation=True)]
PaymentAdmin = Annotated[Actor, requires(Permission.PAYMENTS_MANAGE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/payments")
async def list_own_payments(
    actor: BillingReader, session: Reading, limit: Limit = 100, after: Text | None = None
) -> PaymentList:
    """List the organisation's payments with what they pay and what was given back."""
    found = await service.list_payments(session, actor.organisation_id, limit + 1, after)
    rows = [PaymentOut.model_validate(payment_fields(each)) for each in found]
    return PaymentList(object="list", data=rows[:limit], has_more=len(rows) > limit)


@router.get("/payments/{payment_id}")
async def read_own_payment(payment_id: Text, actor: BillingReader, session: Reading) -> PaymentOut:
    """Show one of the organisation's payments."""
    found = await service.find_payment(session, payment_id, actor.organisation_id)
    return PaymentOut.model_validate(payment_fields(found))


@router.post("/admin/payments", status_code=201)
async def record(
    body: PaymentIn, actor: PaymentAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> PaymentOut:
    """Record money that came in, and pay invoices with it; the same reference counts once."""
    found = await service.record_payment(session, actor, body.payment(), ids, clock)
    return PaymentOut.model_validate(payment_fields(found))


@router.post("/admin/payments/imports")
async def import_bank_statement(
    request: Request, actor: PaymentAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> ImportOut:
    """Import a bank statement, CAMT.053 as the body; what is known already changes nothing."""
    entries = read_camt053(await request.body())
    found = await bank.import_statement(session, actor, entries, ids, clock)
    return ImportOut.model_validate(import_fields(found))


@router.get("/admin/payments/waiting")
async def list_waiting(
    actor: PaymentAdmin, session: Reading, limit: Limit = 100, after: Text | None = None
) -> WaitingList:
    """List the bookings that wait for a person, oldest first."""
    found = await bank.waiting_entries(session, limit + 1, after)
    rows = [WaitingOut.model_validate(waiting_fields(each)) for each in found]
    return WaitingList(object="list", data=rows[:limit], has_more=len(rows) > limit)


@router.post("/admin/payments/waiting/{entry_id}")
async def decide_waiting(
    entry_id: Text, body: AssignIn, actor: PaymentAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> PaymentOut | None:
    """Say whose a booking is and what it pays, or set it aside."""
    if (body.organisation_id is None) == (body.set_aside is None):
        raise BadRequest("Give either organisation_id or set_aside.", param="organisation_id")
    if body.set_aside is not None:
        await bank.set_entry_aside(session, actor, entry_id, body.set_aside, clock)
        return None
    whose = (body.organisation_id or "", tuple(body.invoice_ids))
    found = await bank.assign_entry(session, actor, entry_id, whose, (ids, clock))
    return PaymentOut.model_validate(payment_fields(found))


@router.post("/admin/payments/{payment_id}/allocations")
async def allocate(
    payment_id: Text,
    body: AllocateIn,
    actor: PaymentAdmin,
    session: Transaction,
    ids: RequestIds,
    clock: RequestClock,
) -> PaymentOut:
    """Pay invoices with what is free of a payment."""
    found = await service.allocate_payment(session, actor, payment_id, body.invoice_ids, ids, clock)
    return PaymentOut.model_validate(payment_fields(found))


@router.post("/admin/payments/{payment_id}/refunds")
async def refund(
    payment_id: Text, body: RefundIn, actor: PaymentAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> PaymentOut:
    """Give a payment back, in part or whole; never more than was captured."""
    currency = (await service.find_payment(session, payment_id)).currency
    found = await service.refund_payment(session, actor, payment_id, body.refund(currency), ids, clock)
    return PaymentOut.model_validate(payment_fields(found))
