"""Invoices as payments see them: which are open, what is open of each, and that something was paid or taken back.

An invoice's row is locked before its history is read, rows by their ids, so that two payments see each other.
"""

from collections.abc import Collection
from datetime import datetime
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.documents.creditor_reference import creditor_reference
from galerne.billing.invoices.lifecycle import Course, Happening, HappeningKind, after, course_of
from galerne.billing.invoices.tables import InvoiceEventRow, InvoiceRow
from galerne.billing.payments.matching import OpenInvoice
from galerne.billing.payments.tables import PaymentRow
from galerne.governance import Actor
from galerne.kernel import NotFound, invariant


async def lock_invoices(session: AsyncSession, invoice_ids: Collection[str]) -> dict[str, InvoiceRow]:
    """The rows of these invoices, locked until the transaction ends; `NotFound` if one is missing."""
    query = select(InvoiceRow).where(InvoiceRow.id.in_(invoice_ids)).order_by(InvoiceRow.id)
    rows = await session.scalars(query.with_for_update().execution_options(populate_existing=True))
    found = {row.id: row for row in rows}
    for invoice_id in invoice_ids:
        if invoice_id not in found:
            raise NotFound(f"There is no invoice '{invoice_id[:60]}'.", code="invoice_not_found", param="invoice_ids")
    return found


async def courses_of(session: AsyncSession, invoice_ids: Collection[str]) -> dict[str, Course]:
    """Where these invoices stand."""
    row = InvoiceEventRow
    query = select(row).where(row.invoice_id.in_(invoice_ids)).order_by(row.invoice_id, row.seq)
    history: dict[str, list[Happening]] = {invoice_id: [] for invoice_id in invoice_ids}
    for each in await session.scalars(query):
        kind = cast(HappeningKind, each.kind)
        happening = Happening(kind=kind, at=each.at, amount_minor=each.amount_minor, reference=each.reference)
        history[each.invoice_id].append(happening)
    return {invoice_id: course_of(happenings) for invoice_id, happenings in history.items()}


async def happen(session: AsyncSession, row: InvoiceRow, happening: Happening, actor: Actor) -> Course:
    """The invoice once that has happened to it too; the caller has locked the row. `Conflict` where it cannot be."""
    before = (await courses_of(session, [row.id]))[row.id]
    course = after(before, happening)
    last = await session.scalar(select(func.max(InvoiceEventRow.seq)).where(InvoiceEventRow.invoice_id == row.id))
    session.add(
        InvoiceEventRow(
            invoice_id=row.id,
            seq=(last or 0) + 1,
            kind=happening.kind,
            at=happening.at,
            amount_minor=happening.amount_minor,
            reference=happening.reference,
            actor=actor.id,
        )
    )
    row.state = course.state
    await session.flush()
    return course


async def open_invoices(session: AsyncSession) -> tuple[list[OpenInvoice], dict[str, str]]:
    """Every invoice that waits for money, and whose each one is.

    A payer's account is known to be a customer's once a payment of theirs came from it.
    """
    row, paid = InvoiceRow, PaymentRow
    query = select(row).where(row.kind == "invoice", row.state.in_(("final", "sent"))).order_by(row.id)
    rows = list(await session.scalars(query))
    courses = await courses_of(session, [each.id for each in rows])
    payers: dict[str, set[str]] = {}
    known = select(paid.organisation_id, paid.payer_iban).where(paid.payer_iban != "").distinct()
    for organisation_id, iban in await session.execute(known):
        payers.setdefault(organisation_id, set()).add(iban)
    found = [
        OpenInvoice(
            id=each.id,
            number=_number(each),
            currency=each.currency,
            due_minor=courses[each.id].open_minor,
            creditor_reference=creditor_reference(_number(each)),
            payer_ibans=frozenset(payers.get(each.organisation_id, ())),
        )
        for each in rows
        if courses[each.id].open_minor > 0
    ]
    return found, {each.id: each.organisation_id for each in rows}


def paid(amount_minor: int, reference: str, at: datetime) -> Happening:
    """That so much was paid, or taken back where it is negative, under that name."""
    kind: HappeningKind = "paid" if amount_minor > 0 else "returned"
    return Happening(kind=kind, at=at, amount_minor=abs(amount_minor), reference=reference)


def _number(row: InvoiceRow) -> str:
    invariant(row.number is not None, "an invoice that waits for money has a number")
    return row.number or ""
