"""Bank statements in the database: each booking once, matched to open invoices or waiting for a person.

Nothing is guessed and nothing is lost: what matching does not know stays in the queue until somebody assigns it or
sets it aside, and says why.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from hashlib import sha256
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.payments.camt053 import StatementEntry
from galerne.billing.payments.matching import Match, Outcome, match_payments
from galerne.billing.payments.paid_invoices import open_invoices
from galerne.billing.payments.payment import NewPayment, Payment
from galerne.billing.payments.service import record_payment
from galerne.billing.payments.tables import BankDecisionRow, BankEntryRow
from galerne.governance import Actor, Permission, require
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Ids, NotFound

_FIELDS = tuple(field.name for field in fields(StatementEntry))
_MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file came to: entries that were known already, that became payments, and that wait for a person."""

    entries: int
    known: int
    paid: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingEntry:
    """A booking that nobody has assigned: what the bank says, and which invoices it could pay."""

    id: str
    entry: StatementEntry
    outcome: Outcome
    candidates: tuple[str, ...]
    imported_at: datetime


async def import_statement(
    session: AsyncSession, actor: Actor, entries: Sequence[StatementEntry], ids: Ids, clock: Clock
) -> Imported:
    """Record each booking that is not known, and the payments that matching is sure of; journalled.

    A file that was imported changes nothing. `Conflict` (`statement_changed`) when a booking is known with other
    content.
    """
    require(actor, Permission.PAYMENTS_MANAGE)
    new = await _unknown(session, entries)
    invoices, owners = await open_invoices(session)
    paid = 0
    for match in match_payments(new, invoices):
        entry_id = _entry_id(match.entry)
        whose = {owners[invoice_id] for invoice_id in match.invoice_ids}
        sure = match.outcome in ("exact", "partial", "over") and len(whose) == 1
        outcome = match.outcome if sure or match.outcome == "unmatched" else "ambiguous"
        try:
            async with session.begin_nested():
                session.add(_row(entry_id, match, outcome, clock.now()))
        except IntegrityError:
            raise Conflict("Somebody imports the same bookings now; try again.", code="import_running") from None
        if sure:
            await _pay(session, actor, entry_id, match.entry, (whose.pop(), match.invoice_ids), (ids, clock))
            paid += 1
    counts = {"entries": len(entries), "known": len(entries) - len(new), "paid": paid, "waiting": len(new) - paid}
    if new:
        entry = Entry(
            action="payments.imported",
            actor=actor,
            resource=f"account:{new[0].account_iban}",
            outcome="done",
            at=clock.now(),
            detail=dict(counts),
        )
        await append(session, [entry])
    return Imported(**counts)


async def waiting_entries(session: AsyncSession, limit: int = 100, after: str | None = None) -> list[WaitingEntry]:
    """The queue: bookings that are neither payments nor set aside, oldest first, those behind the entry `after`."""
    row, done = BankEntryRow, BankDecisionRow
    query = select(row).outerjoin(done, done.entry_id == row.id).where(done.entry_id.is_(None))
    if after is not None:
        before = await session.get(row, after)
        if before is None:
            raise BadRequest("There is no such entry; take `after` from the page before.", param="after")
        query = query.where(
            (row.booked_on > before.booked_on) | ((row.booked_on == before.booked_on) & (row.id > after))
        )
    found = await session.scalars(query.order_by(row.booked_on, row.id).limit(limit))
    return [_waiting(each) for each in found]


async def count_waiting(session: AsyncSession) -> int:
    """How many bookings wait for a person."""
    row, done = BankEntryRow, BankDecisionRow
    query = select(func.count()).select_from(row).outerjoin(done, done.entry_id == row.id)
    return int(await session.scalar(query.where(done.entry_id.is_(None))) or 0)


async def assign_entry(
    session: AsyncSession,
    actor: Actor,
    entry_id: str,
    whose: tuple[str, tuple[str, ...]],
    parts: tuple[Ids, Clock],
) -> Payment:
    """The payment that a waiting booking is: of that organisation, for these invoices, none for credit alone.

    `Conflict` (`entry_decided`) for one that was decided, `BadRequest` for what went out: it is no payment.
    """
    require(actor, Permission.PAYMENTS_MANAGE)
    waiting = await _lock_waiting(session, entry_id)
    if waiting.entry.amount_minor <= 0 or waiting.entry.reversal:
        raise BadRequest("This went out of the account, or takes a booking back; set it aside and say why.")
    return await _pay(session, actor, entry_id, waiting.entry, whose, parts)


async def set_entry_aside(session: AsyncSession, actor: Actor, entry_id: str, note: str, clock: Clock) -> WaitingEntry:
    """Take a booking out of the queue that is no customer's payment; `note` says what it is. Journalled."""
    require(actor, Permission.PAYMENTS_MANAGE)
    if not (0 < len(note) <= 200 and note.isprintable()):
        raise BadRequest("note: 1 to 200 printable characters.", param="note")
    waiting = await _lock_waiting(session, entry_id)
    session.add(BankDecisionRow(entry_id=entry_id, kind="set_aside", payment_id=None, note=note, at=clock.now()))
    await session.flush()
    entry = Entry(
        action="payments.set_aside",
        actor=actor,
        resource=f"bank_entry:{entry_id}",
        outcome="done",
        at=clock.now(),
        detail={"amount_minor": str(waiting.entry.amount_minor), "currency": waiting.entry.currency},
    )
    await append(session, [entry])
    return waiting


async def _pay(
    session: AsyncSession,
    actor: Actor,
    entry_id: str,
    entry: StatementEntry,
    whose: tuple[str, tuple[str, ...]],
    parts: tuple[Ids, Clock],
) -> Payment:
    organisation_id, invoice_ids = whose
    ids, clock = parts
    new = NewPayment(
        organisation_id=organisation_id,
        method="bank_transfer",
        reference=entry_id,
        currency=entry.currency,
        amount_minor=entry.amount_minor,
        received_on=entry.booked_on,
        invoice_ids=invoice_ids,
        payer_iban=entry.debtor_iban[:40],
    )
    payment = await record_payment(session, actor, new, ids, clock)
    session.add(BankDecisionRow(entry_id=entry_id, kind="payment", payment_id=payment.id, note="", at=clock.now()))
    await session.flush()
    return payment


async def _unknown(session: AsyncSession, entries: Sequence[StatementEntry]) -> list[StatementEntry]:
    by_id = {_entry_id(entry): entry for entry in entries}
    names, known = list(by_id), dict[str, StatementEntry]()
    for start in range(0, len(names), _MOST_AT_ONCE):
        part = names[start : start + _MOST_AT_ONCE]
        for row in await session.scalars(select(BankEntryRow).where(BankEntryRow.id.in_(part))):
            known[row.id] = _entry(row)
    for name, entry in known.items():
        if by_id[name] != entry:
            raise Conflict(f"The booking {entry.key} was imported with other content before.", code="statement_changed")
    return [entry for name, entry in by_id.items() if name not in known]


async def _lock_waiting(session: AsyncSession, entry_id: str) -> WaitingEntry:
    row = await session.scalar(select(BankEntryRow).where(BankEntryRow.id == entry_id).with_for_update())
    if row is None:
        raise NotFound("There is no such booking.", code="bank_entry_not_found")
    if await session.get(BankDecisionRow, entry_id, populate_existing=True) is not None:
        raise Conflict("This booking was decided already.", code="entry_decided")
    return _waiting(row)


def _entry_id(entry: StatementEntry) -> str:
    return sha256(f"{entry.account_iban}\n{entry.key}".encode()).hexdigest()[:32]


def _row(entry_id: str, match: Match, outcome: str, at: datetime) -> BankEntryRow:
    content: dict[str, Any] = asdict(match.entry)
    return BankEntryRow(id=entry_id, **content, outcome=outcome, candidates=list(match.invoice_ids), imported_at=at)


def _entry(row: BankEntryRow) -> StatementEntry:
    return StatementEntry(**{name: getattr(row, name) for name in _FIELDS})


def _waiting(row: BankEntryRow) -> WaitingEntry:
    return WaitingEntry(
        id=row.id,
        entry=_entry(row),
        outcome=cast(Outcome, row.outcome),
        candidates=tuple(row.candidates),
        imported_at=row.imported_at,
    )
