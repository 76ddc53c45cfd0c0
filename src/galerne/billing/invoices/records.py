"""Invoices as rows: reading them, writing drafts, and adding to what happened to one. Nothing here commits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from sqlalchemy import Select, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.documents.document import Kind
from galerne.billing.invoices.frozen import FrozenDocument, sha256_of, thaw
from galerne.billing.invoices.invoice import Invoice, InvoiceLine, LineKind, Purpose
from galerne.billing.invoices.lifecycle import Course, Happening, HappeningKind, InvoiceState, after, course_of
from galerne.billing.invoices.tables import (
    EmptyInvoiceRow,
    InvoiceChargeRow,
    InvoiceEventRow,
    InvoiceLineRow,
    InvoiceRow,
)
from galerne.billing.rating.rater import LineKey
from galerne.governance import Actor, Permission
from galerne.journal import EMPTY_ROOT, Entry
from galerne.kernel import Conflict, NotFound, invariant


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDraft:
    """A draft to write."""

    id: str
    organisation_id: str
    issuer_id: str
    purpose: Purpose
    currency: str
    lines: Sequence[InvoiceLine]
    kind: Kind = "invoice"
    period: str | None = None
    charges: Mapping[str, int] | None = None
    usage_root: bytes = EMPTY_ROOT
    usage_size: int = 0
    corrects_id: str | None = None
    request_id: str | None = None


async def find_invoice(session: AsyncSession, actor: Actor, invoice_id: str) -> Invoice:
    """An invoice of `actor`'s organisation, or for the operator of any; `NotFound`."""
    return (await _with_courses(session, [await row_of(session, actor, invoice_id)]))[0]


async def list_invoices(
    session: AsyncSession, organisation_id: str | None, after_id: str = "", limit: int = 100
) -> list[Invoice]:
    """At most `limit` invoices and credit notes, drafts among them, oldest first from beyond the id `after_id`."""
    query = select(InvoiceRow).where(InvoiceRow.id > after_id).order_by(InvoiceRow.id).limit(limit)
    if organisation_id is not None:
        query = query.where(InvoiceRow.organisation_id == organisation_id)
    return await _with_courses(session, list(await session.scalars(query)))


async def invoices_of_month(session: AsyncSession, organisation_id: str, period: str) -> list[Invoice]:
    """What was drafted of an organisation's month, by currency."""
    row = InvoiceRow
    query = select(row).where(row.organisation_id == organisation_id, row.period == period, row.purpose == "period")
    return await _with_courses(session, list(await session.scalars(query.order_by(row.currency))))


async def invoice_lines(session: AsyncSession, invoice_id: str) -> list[InvoiceLine]:
    """An invoice's lines, in their order."""
    query = select(InvoiceLineRow).where(InvoiceLineRow.invoice_id == invoice_id).order_by(InvoiceLineRow.position)
    return [line_of(row) for row in await session.scalars(query)]


async def happenings_of(session: AsyncSession, invoice_id: str) -> list[Happening]:
    """What happened to an invoice, oldest first."""
    return (await _happenings(session, [invoice_id])).get(invoice_id, [])


async def frozen_document(session: AsyncSession, actor: Actor, invoice_id: str) -> FrozenDocument:
    """The document of an invoice that is final; `Conflict` before, and an invariant if its text was altered."""
    row = await row_of(session, actor, invoice_id)
    if row.state == "empty":
        raise Conflict(
            "Nothing was to be paid, so this invoice has neither number nor document; its usage can be proved.",
            code="invoice_state",
        )
    return _thawed(row.id, row.document, row.sha256)


async def provable_document(session: AsyncSession, actor: Actor, invoice_id: str) -> FrozenDocument:
    """What an invoice says that is final or `empty`, as `frozen_document`; an empty one bears its id as number.

    Raises `Conflict` for a draft, and (code `not_provable`) for what was found empty before its text was kept.
    """
    row = await row_of(session, actor, invoice_id)
    if row.state != "empty":
        return _thawed(row.id, row.document, row.sha256)
    kept = await session.get(EmptyInvoiceRow, invoice_id)
    if kept is None:
        raise Conflict("What this invoice over nothing says was not kept when it was closed.", code="not_provable")
    return _thawed(row.id, kept.document, kept.sha256)


def _thawed(invoice_id: str, text: str | None, sha256: str | None) -> FrozenDocument:
    if text is None:
        raise Conflict("This invoice is not final; it has no document yet.", code="invoice_state")
    invariant(sha256_of(text) == sha256, f"the document of invoice {invoice_id} is not what was frozen")
    return thaw(text)


async def invoice_id_of(session: AsyncSession, name: str) -> str:
    """The id of the invoice that has this id or number: for the operator alone.

    Raises `NotFound`, and `Conflict` where several issuers have given the number.
    """
    query = select(InvoiceRow.id).where(or_(InvoiceRow.id == name, InvoiceRow.number == name)).limit(2)
    found = list(await session.scalars(query))
    if not found:
        raise NotFound(
            f"There is no invoice '{name[:64]}'; `galerne invoices list` shows them.", code="invoice_not_found"
        )
    if len(found) > 1:
        raise Conflict(f"Several issuers have given the number {name}; name the invoice by its id.")
    return found[0]


async def row_of(session: AsyncSession, actor: Actor, invoice_id: str, *, lock: bool = False) -> InvoiceRow:
    """The invoice's row, locked until the transaction ends if asked for; `NotFound` as `find_invoice`."""
    query: Select[InvoiceRow] = select(InvoiceRow).where(InvoiceRow.id == invoice_id)
    if Permission.PRICES_MANAGE not in actor.permissions:
        query = query.where(InvoiceRow.organisation_id == actor.organisation_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    row = await session.scalar(query)
    if row is None:
        raise NotFound("There is no such invoice.", code="invoice_not_found")
    return row


async def write_draft(session: AsyncSession, actor: Actor, new: NewDraft, at: datetime) -> InvoiceRow:
    """Write a draft with its lines and what it bills of which charge. To be journalled by whoever calls."""
    row = InvoiceRow(
        id=new.id,
        organisation_id=new.organisation_id,
        issuer_id=new.issuer_id,
        kind=new.kind,
        purpose=new.purpose,
        period=new.period,
        currency=new.currency,
        state="draft",
        corrects_id=new.corrects_id,
        request_id=new.request_id,
        usage_root=new.usage_root,
        usage_size=new.usage_size,
        created_at=at,
    )
    session.add(row)
    await session.flush()
    session.add_all(_line_row(new.id, number, line) for number, line in enumerate(new.lines, 1))
    session.add_all(
        InvoiceChargeRow(invoice_id=new.id, charge_id=name, organisation_id=new.organisation_id, nano=nano)
        for name, nano in sorted((new.charges or {}).items())
    )
    await happen(session, actor, row, Happening(kind="drafted", at=at))
    return row


async def happen(session: AsyncSession, actor: Actor, row: InvoiceRow, happening: Happening) -> Course | None:
    """Add to an invoice's history; None if that happened before under the same reference.

    Raises `Conflict` where it cannot happen, or happened with another amount.
    """
    before = await happenings_of(session, row.id)
    same = [each for each in before if (each.kind, each.reference) == (happening.kind, happening.reference)]
    if same:
        if same[0].amount_minor != happening.amount_minor:
            raise Conflict(
                f"'{happening.reference}' was {happening.kind} with another amount.", code="idempotency_conflict"
            )
        return None
    course = after(course_of(before), happening)
    session.add(
        InvoiceEventRow(
            invoice_id=row.id,
            seq=len(before) + 1,
            kind=happening.kind,
            at=happening.at,
            amount_minor=happening.amount_minor,
            reference=happening.reference,
            actor=f"{actor.kind}:{actor.id}"[:100],
        )
    )
    row.state = course.state
    await session.flush()
    return course


def entry_of(action: str, actor: Actor, row: InvoiceRow, at: datetime, **detail: str | int | None) -> Entry:
    """What the journal says of an invoice; the organisation that it is for may read it."""
    whose = replace(actor, organisation_id=row.organisation_id)
    own = {"number": row.number, "currency": row.currency, "organisation": row.organisation_id, **detail}
    return Entry(
        action=f"invoice.{action}", actor=whose, resource=f"invoice:{row.id}", outcome="done", at=at, detail=own
    )


def line_of(row: InvoiceLineRow) -> InvoiceLine:
    """A stored line."""
    return InvoiceLine(
        kind=cast(LineKind, row.kind),
        description=row.description,
        quantity=row.quantity,
        price=row.price,
        base_quantity=row.base_quantity,
        tax_inclusive=row.tax_inclusive,
        exact_nano=row.exact_nano,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        line_key=None if row.line_key is None else LineKey(*row.line_key),
    )


def _line_row(invoice_id: str, position: int, line: InvoiceLine) -> InvoiceLineRow:
    return InvoiceLineRow(
        invoice_id=invoice_id,
        position=position,
        kind=line.kind,
        description=line.description,
        quantity=line.quantity,
        price=line.price,
        base_quantity=line.base_quantity,
        tax_inclusive=line.tax_inclusive,
        exact_nano=line.exact_nano,
        starts_at=line.starts_at,
        ends_at=line.ends_at,
        line_key=None if line.line_key is None else list(line.line_key),
    )


async def _with_courses(session: AsyncSession, rows: Sequence[InvoiceRow]) -> list[Invoice]:
    happened = await _happenings(session, [row.id for row in rows])
    return [_invoice(row, course_of(happened.get(row.id, []))) for row in rows]


async def _happenings(session: AsyncSession, invoice_ids: Iterable[str]) -> dict[str, list[Happening]]:
    row, found = InvoiceEventRow, dict[str, list[Happening]]()
    query = select(row).where(row.invoice_id.in_(list(invoice_ids))).order_by(row.invoice_id, row.seq)
    for each in await session.scalars(query):
        kind = cast(HappeningKind, each.kind)
        happening = Happening(kind=kind, at=each.at, amount_minor=each.amount_minor, reference=each.reference)
        found.setdefault(each.invoice_id, []).append(happening)
    return found


def _invoice(row: InvoiceRow, course: Course) -> Invoice:
    return Invoice(
        id=row.id,
        organisation_id=row.organisation_id,
        issuer_id=row.issuer_id,
        kind=cast(Kind, row.kind),
        purpose=cast(Purpose, row.purpose),
        period=row.period,
        currency=row.currency,
        state=cast(InvoiceState, row.state),
        number=row.number,
        issued_on=row.issued_on,
        due_on=row.due_on,
        net_minor=row.net_minor,
        tax_minor=row.tax_minor,
        due_minor=row.due_minor,
        open_minor=course.open_minor if course.is_final and not course.is_void else None,
        corrects_id=row.corrects_id,
        usage_root=row.usage_root,
        usage_size=row.usage_size,
        sha256=row.sha256,
        created_at=row.created_at,
    )
