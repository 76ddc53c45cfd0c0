"""Closing a month: rate what is left, close it for usage, draft, check and finalise each customer's invoices.

One short transaction a step, customers in the order of their ids: killed anywhere and run again it goes on where it
was, with the numbers and amounts that an undisturbed run gives. Memory is that of one customer's lines, and of the
right edges of the trees of as many customers as one walk over the month's requests serves.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.contracts import renew_due
from galerne.billing.invoices.drafting import MonthDraft, collect_month
from galerne.billing.invoices.finalising import Checker, check_document, document_of_draft, finalise_invoice
from galerne.billing.invoices.frozen import Making, assembled, thaw
from galerne.billing.invoices.german import missing_for_germany
from galerne.billing.invoices.invoice import BillingProfile, Invoice, InvoiceLine
from galerne.billing.invoices.lines import span_of
from galerne.billing.invoices.month_requests import MonthKnown, month_requests
from galerne.billing.invoices.parties import find_issuer, find_profile
from galerne.billing.invoices.postings import net_nanos, recognition
from galerne.billing.invoices.records import (
    NewDraft,
    entry_of,
    find_invoice,
    invoice_lines,
    invoices_of_month,
    write_draft,
)
from galerne.billing.invoices.tables import BillingCloseRow, InvoiceLineRow, InvoiceRow
from galerne.billing.prices.reading import read_book
from galerne.billing.rating.revisions import rerate_unmatched
from galerne.billing.rating.service import close_period, rate_batch
from galerne.billing.rating.tables import UnmatchedUsageRow
from galerne.billing.subscriptions import advance_due
from galerne.governance import Actor
from galerne.identity import list_organisations
from galerne.journal import Entry, append
from galerne.kernel import Clock, Conflict, Database, GalerneError, Ids, Unprocessable
from galerne.ledger import post_entry

_UNPOSTED = ("draft", "empty", "void")
_AT_ONCE = 10_000  # customers for whom one walk over the month's requests is made
_WHOLE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOrder:
    """What to close. `until`: a month is closed early, with what was used and became due before then.

    `allow_unmatched`: usage without a price does not stop it, and is billed in the month in which it is rated.
    """

    period: str
    until: datetime | None = None
    allow_unmatched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseParts:
    """What closing works with; `progress` is told which stage it is in, and how much of how much is done there.

    Stages are `rating` (of an unknown number of requests: 0), `requests` and `customers`.
    """

    ids: Ids
    clock: Clock
    check: Checker
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _all: None


@dataclass(slots=True)
class CloseReport:
    """What closing came to; `refused` says of whom what is wrong, `unbilled` who has no billing profile."""

    period: str
    unmatched: int = 0
    invoices: int = 0
    empty: int = 0
    refused: dict[str, str] = field(default_factory=dict[str, str])
    unbilled: list[str] = field(default_factory=list[str])

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be done by another run."""
        return not self.refused


async def close_billing(database: Database, actor: Actor, order: CloseOrder, parts: CloseParts) -> CloseReport:
    """Close a month's billing; again, and nothing changes that was done.

    Raises `Conflict` for a month that has not ended, or that has usage without a price; what is wrong with one customer
    is in the report and stops no other, and the month is not done before another run finds nothing wrong.
    """
    begun = await _begun(database, order, parts.clock)
    await _advance(database, parts)
    await _rate(database, parts)
    report = CloseReport(order.period, await _unmatched(database, begun.until))
    if report.unmatched and not order.allow_unmatched:
        raise Conflict(
            f"{report.unmatched} requests before {begun.until:%Y-%m-%d %H:%M} have no price: see `galerne rating queue`"
            " and set prices, or close without them.",
            code="unmatched_usage",
        )
    async with database.transaction() as session:
        begun = await _begin(session, begun, parts.clock)
        await close_period(session, actor, order.period, parts.clock)
    async with database.reading() as session:
        customers = sorted([each.id for each in await list_organisations(session)])
    for first in range(0, len(customers), _AT_ONCE):
        some = customers[first : first + _AT_ONCE]
        known = await _known(database, begun.period, some, parts)
        for done, organisation_id in enumerate(some, first):
            parts.progress("customers", done, len(customers))
            try:
                await _close_customer(database, actor, (organisation_id, begun, known), parts, report)
            except GalerneError as error:
                report.refused[organisation_id] = error.message
    parts.progress("customers", len(customers), len(customers))
    if report.is_done:
        await _finish(database, actor, order.period, parts.clock)
    return report


async def preview_close(database: Database, order: CloseOrder) -> AsyncGenerator[MonthDraft]:
    """The drafts that closing now would make of what is rated so far, customer by customer; nothing is written.

    Each says what has to be set before it can become final.
    """
    until = span_of(order.period).end if order.until is None else order.until
    async with database.reading() as session:
        customers = sorted([each.id for each in await list_organisations(session)])
    for organisation_id in customers:
        async with database.reading() as session:
            profile = await find_profile(session, organisation_id)
            language = "en" if profile is None else profile.language
            for draft in await collect_month(session, organisation_id, order.period, until, language):
                yield replace(draft, missing=await _missing(session, draft, profile))


@dataclass(frozen=True, slots=True)
class _Begun:
    period: str
    until: datetime
    issued_on: date


async def _missing(session: AsyncSession, draft: MonthDraft, profile: BillingProfile | None) -> tuple[str, ...]:
    if profile is None:
        return ("set a billing profile: nobody has said to whom the invoice goes",)
    issuer = await find_issuer(session, profile.issuer_id)
    making = Making(
        invoice_id="",
        organisation_id=draft.organisation_id,
        kind="invoice",
        period=draft.period,
        currency=draft.currency,
        number="1",
        issued_on=span_of(draft.period).end.date(),
        issuer=issuer,
        profile=profile,
        usage_root=draft.usage_root,
        usage_size=draft.usage_size,
        payment_days=issuer.payment_days,
    )
    try:
        frozen = assembled(making, list(draft.lines))
    except Unprocessable as error:
        return (error.message,)
    return missing_for_germany(frozen) if frozen.document.totals.gross_minor > 0 else ()


async def _begun(database: Database, order: CloseOrder, clock: Clock) -> _Begun:
    """How the month was begun to be closed, or would be now."""
    now, span = clock.now(), span_of(order.period)
    async with database.reading() as session:
        row = await session.get(BillingCloseRow, order.period)
    if row is not None:
        return _Begun(row.period, row.until, row.issued_on)
    until = span.end if order.until is None else order.until
    if not span.start < until <= span.end or until > now:
        raise Conflict(
            f"{order.period} ends at {span.end:%Y-%m-%d %H:%M} UTC, and what has not happened yet cannot be"
            " billed; look with --dry-run, or close it early with --until.",
            code="period_open",
        )
    return _Begun(order.period, until, now.date())


async def _begin(session: AsyncSession, begun: _Begun, clock: Clock) -> _Begun:
    # Written with the closing of usage and not before: what was refused has left nothing. Who came first counts.
    row = await session.get(BillingCloseRow, begun.period)
    if row is None:
        times = {"started_at": clock.now(), "finished_at": None}
        row = BillingCloseRow(period=begun.period, until=begun.until, issued_on=begun.issued_on, **times)
        session.add(row)
        await session.flush()
    return _Begun(row.period, row.until, row.issued_on)


async def _advance(database: Database, parts: CloseParts) -> None:
    more = 1
    while more:
        async with database.transaction() as session:
            more = await advance_due(session, parts.ids, parts.clock)
    async with database.transaction() as session:
        await renew_due(session, parts.clock)


async def _rate(database: Database, parts: CloseParts) -> None:
    clock, rated = parts.clock, 0
    after, more = "", True
    while more:
        parts.progress("rating", rated, 0)
        async with database.transaction() as session:
            batch = await rate_batch(session, clock, after)
        after, more, rated = batch.last_id, batch.more, rated + batch.rated
    after, more = "", True
    while more:
        async with database.transaction() as session:
            _, after = await rerate_unmatched(session, clock, after=after)
        more = bool(after)


async def _known(database: Database, period: str, customers: Sequence[str], parts: CloseParts) -> MonthKnown:
    """What the requests of those customers come to that have no invoice of the month yet."""
    async with database.reading() as session:
        drafted = select(InvoiceRow.organisation_id).where(InvoiceRow.period == period, InvoiceRow.purpose == "period")
        open_ = set(customers) - set(await session.scalars(drafted))
        rates = {rate.id: rate for rate in (await read_book(session)).rates}
    parts.progress("requests", 0, _WHOLE)
    found = await month_requests(
        database, period, open_, lambda part: parts.progress("requests", int(part * _WHOLE), _WHOLE)
    )
    return MonthKnown(found, rates)


async def _unmatched(database: Database, until: datetime) -> int:
    async with database.reading() as session:
        query = select(func.count()).where(UnmatchedUsageRow.occurred_at < until)
        return int(await session.scalar(query) or 0)


async def _close_customer(
    database: Database, actor: Actor, what: tuple[str, _Begun, MonthKnown], parts: CloseParts, report: CloseReport
) -> None:
    organisation_id, begun, known = what
    async with database.reading() as session:
        profile = await find_profile(session, organisation_id)
        drafted = await invoices_of_month(session, organisation_id, begun.period)
        language = "en" if profile is None else profile.language
        month = (begun.period, begun.until, language, known)
        found = [] if drafted else await collect_month(session, organisation_id, *month)
    if found and profile is None:
        report.unbilled.append(organisation_id)
        return
    if found and profile is not None:
        drafted = await _write(database, actor, (found, profile.issuer_id), parts)
    for invoice in drafted:
        final = await _finalise(database, actor, (invoice, begun.issued_on), parts)
        report.invoices += final.state not in _UNPOSTED
        report.empty += final.state == "empty"
    await _recognise(database, actor, (organisation_id, begun.period), parts.clock)


async def _write(
    database: Database, actor: Actor, what: tuple[list[MonthDraft], str], parts: CloseParts
) -> list[Invoice]:
    drafts, issuer_id = what
    organisation_id, period = drafts[0].organisation_id, drafts[0].period
    now, entries = parts.clock.now(), list[Entry]()
    async with database.transaction() as session:
        if not await invoices_of_month(session, organisation_id, period):
            for draft in drafts:
                new = NewDraft(
                    id=parts.ids.new(),
                    organisation_id=organisation_id,
                    issuer_id=issuer_id,
                    purpose="period",
                    currency=draft.currency,
                    lines=draft.lines,
                    period=period,
                    charges=draft.charges,
                    usage_root=draft.usage_root,
                    usage_size=draft.usage_size,
                )
                row = await write_draft(session, actor, new, now)
                entries.append(entry_of("drafted", actor, row, now, period=period))
            await append(session, entries)
        return await invoices_of_month(session, organisation_id, period)


async def _finalise(database: Database, actor: Actor, what: tuple[Invoice, date], parts: CloseParts) -> Invoice:
    invoice, issued_on = what
    if invoice.state != "draft":
        return invoice
    async with database.reading() as session:
        frozen = await document_of_draft(session, actor, invoice.id, issued_on)
    checked = await check_document(frozen, parts.check)
    async with database.transaction() as session:
        return await finalise_invoice(session, actor, invoice.id, checked, parts.clock)


async def finalise_checked(database: Database, actor: Actor, invoice_id: str, check: Checker, clock: Clock) -> Invoice:
    """Check a draft and make it final, issued today; what is final stays as it is."""
    async with database.reading() as session:
        found = await find_invoice(session, actor, invoice_id)
    parts = CloseParts(ids=Ids(), clock=clock, check=check)
    return await _finalise(database, actor, (found, clock.now().date()), parts)


async def _recognise(database: Database, actor: Actor, what: tuple[str, str], clock: Clock) -> None:
    """Book what is earned in this month of what was paid in advance: fees of a year, say."""
    organisation_id, period = what
    span, now = span_of(period), clock.now()
    async with database.reading() as session:
        due = await _deferred(session, organisation_id, period)
    if not due:
        return
    async with database.transaction() as session:
        for currency, lines in sorted(due.items()):
            booking = recognition(organisation_id, currency, lines, (span.start, span.end))
            entry = booking.entry(f"earned:{period}:{currency}:{organisation_id}", now, f"earned in {period}")
            if entry is not None and await post_entry(session, entry, list(booking.accounts().values())):
                detail = {"period": period, "currency": currency}
                resource = f"organisation:{organisation_id}"
                done = Entry(
                    action="invoice.earned", actor=actor, resource=resource, outcome="done", at=now, detail=detail
                )
                await append(session, [done])


async def _deferred(
    session: AsyncSession, organisation_id: str, period: str
) -> dict[str, list[tuple[InvoiceLine, int]]]:
    row, line = InvoiceRow, InvoiceLineRow
    query = (
        select(row)
        .where(row.organisation_id == organisation_id, row.kind == "invoice", row.period < period)
        .where(row.number.is_not(None), row.state != "void")
        .where(select(line.invoice_id).where(line.invoice_id == row.id, line.ends_at > span_of(period).start).exists())
    )
    found: dict[str, list[tuple[InvoiceLine, int]]] = {}
    for each in await session.scalars(query.order_by(row.id)):
        if await _is_credited(session, each):
            continue
        document, lines = thaw(each.document or "").document, await invoice_lines(session, each.id)
        found.setdefault(each.currency, []).extend(zip(lines, net_nanos(document, lines), strict=True))
    return found


async def _is_credited(session: AsyncSession, row: InvoiceRow) -> bool:
    query = select(func.sum(InvoiceRow.due_minor)).where(
        InvoiceRow.corrects_id == row.id, InvoiceRow.kind == "credit_note", InvoiceRow.number.is_not(None)
    )
    return int(await session.scalar(query) or 0) == row.due_minor


async def _finish(database: Database, actor: Actor, period: str, clock: Clock) -> None:
    async with database.transaction() as session:
        row = await session.get_one(BillingCloseRow, period)
        if row.finished_at is None:
            row.finished_at = now = clock.now()
            await session.flush()
            resource = f"period:{period}"
            done = Entry(action="billing.closed", actor=actor, resource=resource, outcome="done", at=now)
            await append(session, [done])
