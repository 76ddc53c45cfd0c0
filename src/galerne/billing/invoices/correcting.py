"""What becomes of final invoices: sent, credited, void, written again; and credit that is sold. Nothing here commits.

A final invoice is never changed; each step adds to its history, posts, and leaves an entry in the journal.
"""

from dataclasses import dataclass, replace
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
from galerne.billing.prices.decimals import check_currency
from galerne.governance import Actor, Permission, require
from galerne.journal import append
from galerne.kernel import BadRequest, Clock, Conflict, Ids
from galerne.ledger import LARGEST_NANO, post_entry

_LONGEST = 200
_LONGEST_ID = 100


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
    _check_text(asked.request_id, "request_id", _LONGEST_ID)
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
    _check_text(asked.request_id, "request_id", _LONGEST_ID)
    if not 0 < asked.amount_nano <= LARGEST_NANO:
        raise BadRequest("An amount is more than nothing.", param="amount")
    check_currency(asked.currency)
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


def _check_kind(row: InvoiceRow) -> None:
    if row.kind != "invoice":
        raise Conflict(
            "This is a credit note; it corrects an invoice and is not itself corrected.", code="invoice_state"
        )


def _check_text(text: str, param: str, most: int = _LONGEST) -> None:
    if not (len(text.strip()) >= 1 and len(text) <= most and text.isprintable()):
        raise BadRequest(f"{param}: 1 to {most} printable characters.", param=param)
