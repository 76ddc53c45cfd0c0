"""Lots as scripts read and write them: an account's cursor, what its lots have left, entries."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Table as SqlTable

from galerne.kernel import Insert, Query, Script
from galerne.ledger.lot_tables import LEFT, LotEndRow, LotEntryRow, LotRow
from galerne.ledger.lots import LotChange, LotKind, LotSource, LotTerms

_ENTRIES = cast(SqlTable, LotEntryRow.__table__)
_LOTS = cast(SqlTable, LotRow.__table__)
_ENDS = cast(SqlTable, LotEndRow.__table__)
_ENTRY_COLUMNS = (
    "transfer_id",
    "sequence",
    "lot_id",
    "kind",
    "amount_nano",
    "reverses_transfer_id",
    "reverses_sequence",
)
_LOT_COLUMNS = (
    "id",
    "account_id",
    "funding_account_id",
    "transfer_id",
    "kind",
    "amount_nano",
    "priority",
    "effective_at",
    "expires_at",
    "source",
    "source_ref",
    "replaces_lot_id",
    "note",
    "created_at",
)
_CURSOR = "SELECT seq, debits_nano FROM ledger_lot_cursors WHERE account_id = :account_id"
_OPEN_CURSOR = """
INSERT INTO ledger_lot_cursors (account_id, seq, debits_nano) VALUES (:account_id, 0, 0)
ON CONFLICT (account_id) DO NOTHING"""
_MOVE_CURSOR = """
UPDATE ledger_lot_cursors SET seq = :seq, debits_nano = :debits_nano WHERE account_id = :account_id"""
_STATES = f"""
SELECT lot.id, lot.kind, lot.priority, lot.effective_at, lot.expires_at, lot.amount_nano, {LEFT},
  granted_nano, lot.funding_account_id, ended.at, transfer.seq, lot.transfer_id
FROM ledger_lots AS lot
  LEFT JOIN ledger_lot_ends AS ended ON ended.lot_id = lot.id
  LEFT JOIN ledger_transfers AS transfer ON transfer.id = lot.transfer_id
WHERE lot.account_id = :account_id AND (granted_nano = 0 OR {LEFT} > 0)
ORDER BY lot.id"""  # noqa: S608  # names of ours
_SEQS = "SELECT id, seq FROM ledger_transfers WHERE id IN :ids"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an account's transfers have been burned, and the sum of its debits until there."""

    seq: int
    debits_nano: int


@dataclass(frozen=True, slots=True)
class LotState:
    """A lot that has something left, or whose money is still to come; `ended_at` if it was voided.

    `seq` is that of the transfer which brought its money.
    """

    terms: LotTerms
    amount_nano: int
    left_nano: int
    came: bool
    funding_account_id: str
    ended_at: datetime | None
    seq: int
    transfer_id: str

    def over_at(self, now: datetime) -> bool:
        """Whether it is expired or voided."""
        expires_at = self.terms.expires_at
        return self.ended_at is not None or (expires_at is not None and expires_at <= now)


@dataclass(frozen=True, slots=True)
class NewLot:
    """A lot as it is written; `transfer_id` is the posting that brings or will bring its money."""

    terms: LotTerms
    account_id: str
    funding_account_id: str
    transfer_id: str
    amount_nano: int
    source: LotSource
    source_ref: str | None
    note: str
    created_at: datetime
    replaces_lot_id: str | None = None


@dataclass(frozen=True, slots=True)
class LotEntry:
    """What a transfer did to a lot."""

    transfer_id: str
    sequence: int
    lot_id: str
    kind: LotChange
    amount_nano: int
    reverses: tuple[str, int] | None = None


def read_time(value: datetime | str) -> datetime:
    """A stored time, aware; SQLite gives its text to scripts."""
    found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def cursor_script(account_id: str, *, lock: bool) -> Script[Cursor | None]:
    """The account's cursor, locked until the transaction ends or not; None before its first lot."""
    rows = yield Query(f"{_CURSOR} FOR UPDATE" if lock else _CURSOR, {"account_id": account_id})
    return Cursor(*rows[0]) if rows else None


def open_cursor_script(account_id: str) -> Script[None]:
    """Make the account's cursor; its account is locked."""
    yield Query(_OPEN_CURSOR, {"account_id": account_id})


def move_cursor_script(account_id: str, cursor: Cursor) -> Script[None]:
    """Note how far the account's transfers are burned; its cursor is locked."""
    yield Query(_MOVE_CURSOR, {"account_id": account_id, "seq": cursor.seq, "debits_nano": cursor.debits_nano})


def states_script(account_id: str) -> Script[list[LotState]]:
    """The account's lots that have something left, or whose money is still to come, by id."""
    rows = yield Query(_STATES, {"account_id": account_id})
    return [_state(row) for row in rows]


def write_lots_script(lots: Sequence[NewLot]) -> Script[None]:
    """Write new lots."""
    yield Insert(_LOTS, _LOT_COLUMNS, [_lot_row(each) for each in lots])


def write_entries_script(entries: Sequence[LotEntry]) -> Script[None]:
    """Write entries; the database adds them up in their lots."""
    yield Insert(_ENTRIES, _ENTRY_COLUMNS, [_entry_row(each) for each in entries])


def write_end_script(lot_id: str, reason: str, at: datetime) -> Script[None]:
    """Note that a lot was voided."""
    yield Insert(_ENDS, ("lot_id", "reason", "at"), [(lot_id, reason, at)])


def seqs_script(transfer_ids: Collection[str]) -> Script[Mapping[str, int]]:
    """The order in which transfers were recorded."""
    return {row[0]: row[1] for row in (yield Query(_SEQS, {"ids": list(transfer_ids)}))}


def _state(row: Sequence[Any]) -> LotState:
    expires_at = None if row[4] is None else read_time(row[4])
    terms = LotTerms(row[0], LotKind(row[1]), row[2], read_time(row[3]), expires_at)
    ended_at = None if row[9] is None else read_time(row[9])
    came = row[7] > 0
    return LotState(terms, row[5], row[6], came, row[8], ended_at, row[10] if came else 0, row[11])


def _lot_row(lot: NewLot) -> tuple[Any, ...]:
    terms = lot.terms
    return (
        terms.id,
        lot.account_id,
        lot.funding_account_id,
        lot.transfer_id,
        str(terms.kind),
        lot.amount_nano,
        terms.priority,
        terms.effective_at,
        terms.expires_at,
        str(lot.source),
        lot.source_ref,
        lot.replaces_lot_id,
        lot.note,
        lot.created_at,
    )


def _entry_row(entry: LotEntry) -> tuple[Any, ...]:
    transfer_id, sequence = entry.reverses or (None, None)
    kind = str(entry.kind)
    return (entry.transfer_id, entry.sequence, entry.lot_id, kind, entry.amount_nano, transfer_id, sequence)
