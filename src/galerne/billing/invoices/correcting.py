"""What becomes of final invoices: sent, paid, returned, credited, void, written again. Nothing here commits.

A final invoice is never changed; each step adds to its history, posts, and leaves an entry in the journal.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.invoices.finalising import booking_to_undo
from galerne.billing.invoices.frozen import thaw
from galerne.billing.invoices.invoice import Invoice, InvoiceLine
from galerne.billing.invoices.lifecycle import Happening, course_of
from galerne.billing.invoices.lines import decimal_text, nano_of_minor
from galerne.billing.invoices.parties import need_profile
from galerne.billing.invoices.records import (
    NewDraft,
    entry_of,
    find_invoice,
    happen,
    happenings_of,
    invoice_lines,
    row_of,
    write_draft,
)
from galerne.billing.invoices.tables import InvoiceRow
from galerne.billing.invoices.wording import words
from galerne.billing.payments.matching import OpenInvoice, creditor_reference
from galerne.governance import Actor, Permission, require
from galerne.journal import append
from galerne.kernel import BadRequest, Clock, Conflict, Ids
from galerne.ledger import (
    LARGEST_NANO,
    AccountKind,
    BookEntry,
    Grant,
    Leg,
    grant_credit,
    house_account,
    organisation_account,
    post_entry,
)

_LONGEST = 200
_LONGEST_REFERENCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """Money that came for an invoice, or (`return_payment`) went back; `reference` names it, once."""

    invoice_id: str
    amount_minor: int
    reference: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Crediting:
    """What to credit of an invoice: all of it, or `net_minor` without VAT. `request_id` makes it happen once."""

    invoice_id: str
    reason: str
    request_id: str
    net_minor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """Credit that an organisation wants to buy, without VAT; it is granted once its invoice is paid."""

    organisation_id: str
    amount_nano: int
    currency: str
    request_id: str


async def mark_sent(session: AsyncSession, actor: Actor, invoice_id: str, clock: Clock) -> Invoice:
    """Note that a final invoice went out; once is enough."""
    require(actor, Permission.PRICES_MANAGE)
    row, now = await row_of(session, actor, invoice_id, lock=True), clock.now()
    if await happen(session, actor, row, Happening(kind="sent", at=now)):
        await append(session, [entry_of("sent", actor, row, now)])
    return await find_invoice(session, actor, invoice_id)


async def record_payment(session: AsyncSession, actor: Actor, paid: Paid, clock: Clock) -> Invoice:
    """Book money that came for an invoice; the same reference again changes nothing.

    A top-up that is paid in full is granted in the same transaction. Raises `Conflict` for more than is open, and for a
    reference that was used with another amount.
    """
    require(actor, Permission.PRICES_MANAGE)
    row, now = await row_of(session, actor, paid.invoice_id, lock=True), clock.now()
    _check_kind(row)
    course = await happen(session, actor, row, _money("paid", paid))
    if course is not None:
        await _move(session, row, ("payment", paid), now)
        if row.purpose == "top_up" and course.state == "paid":
            await _grant(session, actor, row, clock)
        detail = {"amount_minor": str(paid.amount_minor), "reference": paid.reference}
        await append(session, [entry_of("paid", actor, row, now, **detail)])
    return await find_invoice(session, actor, paid.invoice_id)


async def return_payment(session: AsyncSession, actor: Actor, paid: Paid, clock: Clock) -> Invoice:
    """Book money that went back: a refund, or a payment that was taken back. Never more than was paid: `Conflict`.

    What a top-up has granted stays: it is taken back with the ledger's `void_lot` first.
    """
    require(actor, Permission.PRICES_MANAGE)
    row, now = await row_of(session, actor, paid.invoice_id, lock=True), clock.now()
    _check_kind(row)
    if await happen(session, actor, row, _money("returned", paid)):
        await _move(session, row, ("return", paid), now)
        detail = {"amount_minor": str(paid.amount_minor), "reference": paid.reference}
        await append(session, [entry_of("returned", actor, row, now, **detail)])
    return await find_invoice(session, actor, paid.invoice_id)


async def open_invoices(session: AsyncSession) -> list[OpenInvoice]:
    """Every invoice that waits for money, as matching of payments wants it: for the operator alone."""
    query = select(InvoiceRow).where(InvoiceRow.state.in_(("final", "sent")), InvoiceRow.kind == "invoice")
    found: list[OpenInvoice] = []
    for row in await session.scalars(query.order_by(InvoiceRow.id)):
        due = course_of(await happenings_of(session, row.id)).open_minor
        number = row.number or ""
        reference = creditor_reference(number)
        each = OpenInvoice(id=row.id, number=number, currency=row.currency, due_minor=due, creditor_reference=reference)
        found.append(each)
    return found


async def void_invoice(session: AsyncSession, actor: Actor, invoice_id: str, reason: str, clock: Clock) -> Invoice:
    """Declare a final invoice void and take back its postings; its number stays used. Once is enough.

    Raises `Conflict` once something was paid or credited: then it is corrected by a credit note.
    """
    require(actor, Permission.PRICES_MANAGE)
    _check_text(reason, "reason")
    row, now = await row_of(session, actor, invoice_id, lock=True), clock.now()
    _check_kind(row)
    if row.state == "void":
        return await find_invoice(session, actor, invoice_id)
    await happen(session, actor, row, Happening(kind="voided", at=now, reference=reason))
    booking = await booking_to_undo(session, row)
    entry = booking.entry(f"void:{row.id}", now, f"void {row.number}")
    if entry is not None:
        await post_entry(session, entry, list(booking.accounts().values()))
    await append(session, [entry_of("voided", actor, row, now, reason=reason)])
    return await find_invoice(session, actor, invoice_id)


async def reissue_invoice(session: AsyncSession, actor: Actor, invoice_id: str, ids: Ids, clock: Clock) -> Invoice:
    """A draft with the lines of a void invoice, to whom its organisation's profile says now; once."""
    require(actor, Permission.PRICES_MANAGE)
    row, now = await row_of(session, actor, invoice_id, lock=True), clock.now()
    if row.state != "void":
        raise Conflict("Only what is void is written again.", code="invoice_state")
    request_id = f"reissue:{row.id}"
    existing = await _asked(session, row.organisation_id, request_id)
    if existing is None:
        new = NewDraft(
            id=ids.new(),
            organisation_id=row.organisation_id,
            issuer_id=(await need_profile(session, row.organisation_id)).issuer_id,
            purpose="reissue",
            currency=row.currency,
            lines=await invoice_lines(session, row.id),
            period=row.period,
            usage_root=row.usage_root,
            usage_size=row.usage_size,
            corrects_id=row.id,
            request_id=request_id,
        )
        existing = await write_draft(session, actor, new, now)
        await append(session, [entry_of("drafted", actor, existing, now, purpose="reissue")])
    return await find_invoice(session, actor, existing.id)


async def draft_credit_note(session: AsyncSession, actor: Actor, asked: Crediting, ids: Ids, clock: Clock) -> Invoice:
    """A draft of a credit note on a final invoice, in whole or in part; final once it is checked like any other.

    Raises `Conflict` where more would be credited than was invoiced, or on an invoice that is void, and for a request
    id that was used for something else; `BadRequest` for an amount that is nothing.
    """
    require(actor, Permission.PRICES_MANAGE)
    _check_text(asked.reason, "reason")
    _check_text(asked.request_id, "request_id")
    row, now = await row_of(session, actor, asked.invoice_id, lock=True), clock.now()
    _check_kind(row)
    course = course_of(await happenings_of(session, row.id))
    if not course.is_final or course.is_void:
        raise Conflict(
            f"The invoice is {course.state}; a credit note corrects one that is final.", code="invoice_state"
        )
    if row.purpose == "top_up" and course.paid_minor:
        raise Conflict("Credit that was paid is given back by voiding its lot and returning the money.")
    existing = await _asked(session, row.organisation_id, asked.request_id)
    lines = await _credited_lines(session, row, asked, 0 if existing else course.credited_minor)
    if existing is None:
        new = NewDraft(
            id=ids.new(),
            organisation_id=row.organisation_id,
            issuer_id=row.issuer_id,
            kind="credit_note",
            purpose="credit_note",
            currency=row.currency,
            lines=lines,
            corrects_id=row.id,
            request_id=asked.request_id,
        )
        existing = await write_draft(session, actor, new, now)
        await append(session, [entry_of("drafted", actor, existing, now, purpose="credit_note", reason=asked.reason)])
    elif existing.corrects_id != row.id or await invoice_lines(session, existing.id) != lines:
        raise Conflict("This request id was used for something else.", code="idempotency_conflict", param="request_id")
    return await find_invoice(session, actor, existing.id)


async def draft_top_up(session: AsyncSession, actor: Actor, asked: TopUp, ids: Ids, clock: Clock) -> Invoice:
    """A draft of an invoice for credit; the same request id finds the same one, with another amount `Conflict`."""
    require(actor, Permission.PRICES_MANAGE)
    _check_text(asked.request_id, "request_id")
    if not 0 < asked.amount_nano <= LARGEST_NANO:
        raise BadRequest("An amount is more than nothing.", param="amount")
    profile, now = await need_profile(session, asked.organisation_id), clock.now()
    line = InvoiceLine(
        kind="credit",
        description=words(profile.language, "credit"),
        quantity=1,
        price=decimal_text(Fraction(asked.amount_nano, 10**9)),
        exact_nano=asked.amount_nano,
        starts_at=now,
        ends_at=now,
    )
    existing = await _asked(session, asked.organisation_id, asked.request_id)
    if existing is None:
        new = NewDraft(
            id=ids.new(),
            organisation_id=asked.organisation_id,
            issuer_id=profile.issuer_id,
            purpose="top_up",
            currency=asked.currency,
            lines=[line],
            request_id=asked.request_id,
        )
        existing = await write_draft(session, actor, new, now)
        await append(session, [entry_of("drafted", actor, existing, now, purpose="top_up")])
    else:
        before = await invoice_lines(session, existing.id)
        same = replace(before[0], starts_at=now, ends_at=now, description=line.description) == line
        if not same or existing.currency != asked.currency:
            raise Conflict(
                "This request id was used for something else.", code="idempotency_conflict", param="request_id"
            )
    return await find_invoice(session, actor, existing.id)


async def _credited_lines(
    session: AsyncSession, row: InvoiceRow, asked: Crediting, credited_minor: int
) -> list[InvoiceLine]:
    if asked.net_minor is None:
        if credited_minor:
            raise Conflict("A part is credited already; say how much of the rest.", code="invoice_state")
        return await invoice_lines(session, row.id)
    if asked.net_minor <= 0:
        raise BadRequest("An amount to credit is more than nothing.", param="amount")
    if asked.net_minor > (row.net_minor or 0):
        raise Conflict("That is more than was invoiced.", code="credit_above_invoice", param="amount")
    frozen, nano = thaw(row.document or ""), nano_of_minor(asked.net_minor, row.currency)
    text = f"{words(frozen.language, 'credited', number=row.number)}: {asked.reason}"
    return [
        InvoiceLine(
            kind="carried",
            description=text,
            quantity=1,
            price=decimal_text(Fraction(nano, 10**9)),
            exact_nano=nano,
            starts_at=row.created_at,
            ends_at=row.created_at,
        )
    ]


async def _asked(session: AsyncSession, organisation_id: str, request_id: str) -> InvoiceRow | None:
    query = select(InvoiceRow).where(InvoiceRow.organisation_id == organisation_id, InvoiceRow.request_id == request_id)
    return await session.scalar(query)


async def _move(session: AsyncSession, row: InvoiceRow, what: tuple[str, Paid], now: datetime) -> None:
    name, paid = what
    nano = nano_of_minor(paid.amount_minor, row.currency)
    cash = house_account(AccountKind.CASH_CLEARING, row.currency)
    owed = organisation_account(AccountKind.RECEIVABLE, row.organisation_id, row.currency)
    debit, credit = (cash, owed) if name == "payment" else (owed, cash)
    entry = BookEntry(
        id=f"{name}:{row.id}:{paid.reference}",
        debits=[Leg(debit.id, nano)],
        credits=[Leg(credit.id, nano)],
        at=now,
        reason=f"{name} {row.number}",
    )
    await post_entry(session, entry, [cash, owed])


async def _grant(session: AsyncSession, actor: Actor, row: InvoiceRow, clock: Clock) -> None:
    (line,) = await invoice_lines(session, row.id)
    grant = Grant(
        id=f"top-up:{row.id}",
        amount_nano=line.exact_nano,
        currency=row.currency,
        reason=f"invoice {row.number}",
        source_ref=row.id,
        funding=house_account(AccountKind.DEFERRED_REVENUE, row.currency),
    )
    await grant_credit(session, replace(actor, organisation_id=row.organisation_id), grant, clock)


def _money(kind: str, paid: Paid) -> Happening:
    _check_text(paid.reference, "reference")
    if len(paid.reference) > _LONGEST_REFERENCE:
        raise BadRequest(f"A reference has at most {_LONGEST_REFERENCE} characters.", param="reference")
    if paid.amount_minor <= 0:
        raise BadRequest("An amount is more than nothing.", param="amount")
    return Happening(
        kind="paid" if kind == "paid" else "returned",
        at=paid.at,
        amount_minor=paid.amount_minor,
        reference=paid.reference,
    )


def _check_kind(row: InvoiceRow) -> None:
    if row.kind != "invoice":
        raise Conflict(
            "This is a credit note; it corrects an invoice and is not itself corrected.", code="invoice_state"
        )


def _check_text(text: str, param: str) -> None:
    if not (1 <= len(text.strip()) <= _LONGEST and text.isprintable()):
        raise BadRequest(f"1 to {_LONGEST} printable characters.", param=param)
