"""How a draft becomes final: checked by the law's own rules first, then number, document and postings in one commit.

Checking takes a process of its own and time, so it comes before the transaction; what is written then must be what was
checked, but for the number. Nothing here commits.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.document import Preceding
from galerne.billing.documents.validation import Finding
from galerne.billing.invoices.frozen import FrozenDocument, Making, assembled, due_on, sha256_of, thaw
from galerne.billing.invoices.german import missing_for_germany
from galerne.billing.invoices.invoice import Invoice, InvoiceLine
from galerne.billing.invoices.lifecycle import Happening, course_of
from galerne.billing.invoices.lines import span_of
from galerne.billing.invoices.numbering import next_number, series_of
from galerne.billing.invoices.parties import find_issuer, need_profile
from galerne.billing.invoices.postings import Booking, booking_of, credit_booking, net_nanos, recognition
from galerne.billing.invoices.records import entry_of, find_invoice, happen, happenings_of, invoice_lines, row_of
from galerne.billing.invoices.tables import BillingCloseRow, EmptyInvoiceRow, InvoiceRow, InvoiceSeriesRow
from galerne.governance import Actor, Permission, require
from galerne.journal import append
from galerne.kernel import Clock, Conflict, Unprocessable, invariant
from galerne.ledger import post_entry

Checker = Callable[[bytes], Sequence[Finding]]
"""What is wrong with an invoice's XML, called in a thread of its own: `Validator.check`, or `check_once`."""
# One, and not of those that all share: a check takes a second, half a minute if it hangs, and a process of 240 MB.
_CHECKING = ThreadPoolExecutor(1, "invoice-check")
_MOST_RULES = 5
_NO_XRECHNUNG = "It goes to a German authority, as an XRechnung, and that asks for more: "


@dataclass(frozen=True, slots=True)
class Checked:
    """A document that was found to be in order; its number is a stand-in."""

    frozen: FrozenDocument


async def document_of_draft(session: AsyncSession, actor: Actor, invoice_id: str, issued_on: date) -> FrozenDocument:
    """What a draft will become if it is issued that day, with a stand-in for its number; reads only.

    Raises `Unprocessable` (code `invalid_document`) that says why no VAT can be decided.
    """
    row = await row_of(session, actor, invoice_id)
    lines = await invoice_lines(session, invoice_id)
    making = await _making(session, row, issued_on)
    series = series_of(making.issuer, making.kind, issued_on)
    last = await session.scalar(
        select(InvoiceSeriesRow.last).where(
            InvoiceSeriesRow.issuer_id == making.issuer.id, InvoiceSeriesRow.series == series
        )
    )
    return assembled(replace(making, number=f"{series}-{(last or 0) + 1:06d}"), lines)


async def check_document(frozen: FrozenDocument, check: Checker) -> Checked:
    """The document, once nothing is wrong with it; hold no session meanwhile, for that takes seconds.

    Only one is checked at a time. Raises `Unprocessable`: with the code `xrechnung_incomplete` naming each setting that
    Germany asks for on top, with `invalid_document` naming the rules that it breaks.
    """
    if frozen.document.totals.gross_minor > 0:
        if missing := missing_for_germany(frozen):
            raise Unprocessable(_NO_XRECHNUNG + "; ".join(missing) + ".", code="xrechnung_incomplete")
        xml = to_cii(frozen.document, frozen.flavour)
        found = await asyncio.get_running_loop().run_in_executor(_CHECKING, check, xml)
        broken = [finding for finding in found if finding.is_fatal]
        if broken:
            said = "; ".join(f"{each.rule}: {each.text}" for each in broken[:_MOST_RULES])
            raise Unprocessable(f"The document breaks the rules of EN 16931: {said}", code="invalid_document")
    return Checked(frozen)


async def finalise_invoice(
    session: AsyncSession, actor: Actor, invoice_id: str, checked: Checked, clock: Clock
) -> Invoice:
    """Make a draft final: number, frozen document, postings and journal entry; one over nothing to pay is `empty`.

    One that is final already stays as it is. Raises `Conflict` if it is not what was checked, or corrects an invoice by
    more than is left of it.
    """
    require(actor, Permission.PRICES_MANAGE)
    row = await row_of(session, actor, invoice_id, lock=True)
    if row.state == "draft":
        await _finalise(session, actor, row, checked, clock.now())
    return await find_invoice(session, actor, invoice_id)


async def booking_to_undo(session: AsyncSession, row: InvoiceRow) -> Booking:
    """The booking that takes a whole invoice back: what was earned of it since is revenue's to lose."""
    invariant(row.document is not None, "only what is final was booked")
    document, lines = thaw(row.document or "").document, await invoice_lines(session, row.id)
    until = _earned_until(row)
    booking = booking_of(row.organisation_id, document, lines, until)
    closed = await session.scalar(
        select(BillingCloseRow.period)
        .where(BillingCloseRow.finished_at.is_not(None), BillingCloseRow.period > (row.period or "9999"))
        .order_by(BillingCloseRow.period.desc())
        .limit(1)
    )
    nano = dict(booking.nano)
    if closed is not None:
        pairs = list(zip(lines, net_nanos(document, lines), strict=True))
        since = recognition(row.organisation_id, row.currency, pairs, (until, span_of(closed).end))
        nano = {kind: nano.get(kind, 0) + since.nano.get(kind, 0) for kind in {**nano, **since.nano}}
    return Booking(row.organisation_id, row.currency, nano).reversed()


async def _finalise(session: AsyncSession, actor: Actor, row: InvoiceRow, checked: Checked, now: datetime) -> None:
    stand_in, lines = checked.frozen.document.draft, await invoice_lines(session, row.id)
    making = replace(await _making(session, row, stand_in.issued_on), number=stand_in.number)
    if assembled(making, lines) != checked.frozen:
        raise Conflict("The draft or its parties have changed since it was checked.", code="draft_changed")
    totals = checked.frozen.document.totals
    if totals.gross_minor <= 0:
        # Nobody may be given a number that stands for nothing to pay: it goes by its id.
        await _empty(session, actor, row, assembled(replace(making, number=row.id), lines), now)
        return
    # Before the number: what corrects another holds that row first, as whoever voids or pays it does.
    if row.kind == "credit_note":
        await _credit(session, actor, row, totals.due_minor, now)
    number = await next_number(session, making.issuer, making.kind, making.issued_on)
    final = replace(making, number=number.text)
    frozen = assembled(final, lines)
    row.series, row.sequence, row.number = number.series, number.sequence, number.text
    row.issued_on, row.due_on = final.issued_on, due_on(final)
    row.net_minor, row.tax_minor, row.due_minor = totals.net_minor, totals.tax_minor, totals.due_minor
    text = frozen.text()
    row.document, row.sha256 = text, sha256_of(text)
    happening = Happening(kind="finalised", at=now, amount_minor=totals.due_minor)
    row.state = "final"
    await happen(session, actor, row, happening)
    await _book(session, row, await _booking(session, row, frozen, lines), now)
    detail: dict[str, str | int | None] = {"due_minor": str(totals.due_minor), "sha256": row.sha256}
    await append(session, [entry_of("finalised", actor, row, now, **detail, **_usage_of(row))])


async def _empty(session: AsyncSession, actor: Actor, row: InvoiceRow, frozen: FrozenDocument, now: datetime) -> None:
    totals = frozen.document.totals
    row.net_minor, row.tax_minor, row.due_minor = totals.net_minor, totals.tax_minor, totals.due_minor
    await happen(session, actor, row, Happening(kind="emptied", at=now))
    if totals.gross_minor == 0:
        # Nothing to pay, and yet something happened: a commitment was used.
        lines = await invoice_lines(session, row.id)
        await _book(session, row, booking_of(row.organisation_id, frozen.document, lines, _earned_until(row)), now)
    text = frozen.text()
    session.add(EmptyInvoiceRow(invoice_id=row.id, document=text, sha256=sha256_of(text)))
    detail: dict[str, str | int | None] = {"net_minor": str(totals.net_minor), "sha256": sha256_of(text)}
    await append(session, [entry_of("emptied", actor, row, now, **detail, **_usage_of(row))])


def _usage_of(row: InvoiceRow) -> dict[str, str | int | None]:
    return {"usage_root": row.usage_root.hex(), "usage_size": row.usage_size}


async def _booking(session: AsyncSession, row: InvoiceRow, frozen: FrozenDocument, lines: list[InvoiceLine]) -> Booking:
    if row.kind == "invoice":
        return booking_of(row.organisation_id, frozen.document, lines, _earned_until(row))
    original = await session.get_one(InvoiceRow, row.corrects_id)
    if frozen.document.totals.due_minor == original.due_minor:
        return await booking_to_undo(session, original)
    return credit_booking(row.organisation_id, frozen.document)


async def _book(session: AsyncSession, row: InvoiceRow, booking: Booking, now: datetime) -> None:
    entry = booking.entry(f"invoice:{row.id}", now, f"invoice {row.number or row.id}")
    if entry is not None:
        await post_entry(session, entry, list(booking.accounts().values()))


async def _credit(session: AsyncSession, actor: Actor, row: InvoiceRow, due_minor: int, now: datetime) -> None:
    original = await row_of(session, actor, row.corrects_id or "", lock=True)
    happening = Happening(kind="credited", at=now, amount_minor=due_minor, reference=row.id)
    await happen(session, actor, original, happening)


async def _making(session: AsyncSession, row: InvoiceRow, issued_on: date) -> Making:
    issuer = await find_issuer(session, row.issuer_id)
    profile = await need_profile(session, row.organisation_id)
    preceding, vat = None, None
    if row.corrects_id is not None and row.kind == "credit_note":
        original = await session.get_one(InvoiceRow, row.corrects_id)
        invariant(original.document is not None, "a credit note corrects what is final")
        before = thaw(original.document or "").document.draft
        preceding, vat = Preceding(number=before.number, issued_on=before.issued_on), before.lines[0].vat
    days = issuer.payment_days if profile.payment_days is None else profile.payment_days
    return Making(
        invoice_id=row.id,
        organisation_id=row.organisation_id,
        kind="credit_note" if row.kind == "credit_note" else "invoice",
        period=row.period,
        currency=row.currency,
        number="",
        issued_on=issued_on,
        issuer=issuer,
        profile=profile,
        usage_root=row.usage_root,
        usage_size=row.usage_size,
        payment_days=days,
        preceding=preceding,
        vat=vat,
    )


def _earned_until(row: InvoiceRow) -> datetime:
    return row.created_at if row.period is None else span_of(row.period).end


async def open_minor(session: AsyncSession, row: InvoiceRow) -> int:
    """What is still to be paid of it."""
    return course_of(await happenings_of(session, row.id)).open_minor
