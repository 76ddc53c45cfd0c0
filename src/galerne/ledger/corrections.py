"""Usage that was charged wrongly, given back: to the lots that paid for it, the last burned first.

What ended meanwhile would be lost on its old lot, though the customer could not use it because of us. It becomes a new
lot of the same kind and priority, which is valid for another `GRACE` if the old one could expire.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table as SqlTable

from galerne.kernel import BadRequest, Conflict, Insert, NotFound, Query, Script
from galerne.ledger.allocation import catch_up_script
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import LARGEST_NANO, AccountKind, TransferKind
from galerne.ledger.lot_rows import (
    Cursor,
    LotEntry,
    NewLot,
    move_cursor_script,
    read_time,
    seqs_script,
    write_entries_script,
    write_lots_script,
)
from galerne.ledger.lots import Burned, LotChange, LotKind, LotSource, LotTerms, Part, unwind
from galerne.ledger.tables import TransferRow
from galerne.ledger.transfers import check_name_script

GRACE = timedelta(days=30)
"""How long credit that comes back after its lot expired can be used."""

_LONGEST_TEXT = 200
_TRANSFERS = cast(SqlTable, TransferRow.__table__)
_COLUMNS = ("id", "kind", "debit_account_id", "credit_account_id", "amount_nano", "reason", "at")
_POST = str(TransferKind.POST)
_CHARGE = """
SELECT transfer.debit_account_id, transfer.credit_account_id, account.kind FROM ledger_transfers AS transfer
  JOIN ledger_accounts AS account ON account.id = transfer.debit_account_id
WHERE transfer.id = :id AND transfer.kind IN ('post', 'settle')"""
_RECORDED = """
SELECT transfer.debit_account_id, transfer.credit_account_id, transfer.amount_nano, transfer.reason,
  (SELECT min(reverses_transfer_id) FROM ledger_lot_entries AS entry WHERE entry.transfer_id = transfer.id)
FROM ledger_transfers AS transfer WHERE transfer.id = :id"""
_BURNED = """
SELECT entry.sequence, entry.lot_id, CAST(entry.amount_nano - coalesce((
    SELECT sum(back.amount_nano) FROM ledger_lot_entries AS back
    WHERE back.reverses_transfer_id = entry.transfer_id AND back.reverses_sequence = entry.sequence
  ), 0) AS BIGINT)
FROM ledger_lot_entries AS entry WHERE entry.transfer_id = :id AND entry.kind = 'burn' ORDER BY entry.sequence"""
_OLD = """
SELECT lot.id, lot.kind, lot.priority, lot.expires_at, lot.funding_account_id, ended.at
FROM ledger_lots AS lot LEFT JOIN ledger_lot_ends AS ended ON ended.lot_id = lot.id WHERE lot.id IN :ids"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """So much of what the transfer `charge_id` took from a prepaid account was charged wrongly; `id` is its own."""

    id: str
    charge_id: str
    amount_nano: int
    reason: str

    def __post_init__(self) -> None:
        if not 0 < self.amount_nano <= LARGEST_NANO:
            raise BadRequest(f"An amount lies between 1 and {LARGEST_NANO} nano-units.", param="amount")
        for name in ("id", "charge_id", "reason"):
            text = getattr(self, name)
            if not (0 < len(text) <= _LONGEST_TEXT and text.isprintable()):
                raise BadRequest(f"{name}: 1 to {_LONGEST_TEXT} printable characters.", param=name)


@dataclass(frozen=True, slots=True)
class _Old:
    kind: LotKind
    priority: int
    expires_at: datetime | None
    funding_account_id: str
    ended_at: datetime | None

    def over_at(self, now: datetime) -> bool:
        return self.ended_at is not None or (self.expires_at is not None and self.expires_at <= now)


def correct_script(new: Correction, now: datetime) -> Script[bool]:
    """Give the amount back; False if that was done before with the same content, and nothing changed.

    Raises `NotFound` for an unknown charge, `BadRequest` for one that no lots paid, `Conflict` if the id is recorded
    with other content or more would come back than was charged.
    """
    rows = yield Query(_CHARGE, {"id": new.charge_id})
    if not rows:
        raise NotFound(f"There is no charge '{new.charge_id}'.", code="charge_not_found", param="charge_id")
    account_id, other_id, kind = rows[0]
    if kind != AccountKind.PREPAID:
        raise BadRequest(f"The charge '{new.charge_id}' was not paid from credit.", param="charge_id")
    cursor, _ = yield from catch_up_script(account_id, [other_id])
    content = (other_id, account_id, new.amount_nano, new.reason, new.charge_id)
    for row in (yield Query(_RECORDED, {"id": new.id})):
        if tuple(row) == content:
            return False
        raise Conflict(f"The transfer '{new.id}' is recorded with other content.")
    yield from check_name_script(new.id)
    burned = [Burned(*row) for row in (yield Query(_BURNED, {"id": new.charge_id}))]
    left = sum(each.left_nano for each in burned)
    if left < new.amount_nano:
        raise Conflict(
            f"Of '{new.charge_id}' {amount_text(left)} can still be given back, not {amount_text(new.amount_nano)}.",
            code="correction_too_large",
        )
    yield Insert(_TRANSFERS, _COLUMNS, [(new.id, _POST, other_id, account_id, new.amount_nano, new.reason, now)])
    yield from _give_back_script(new, account_id, unwind(burned, new.amount_nano), now)
    seqs = yield from seqs_script([new.id])
    yield from move_cursor_script(account_id, Cursor(seqs[new.id], cursor.debits_nano))
    return True


def _give_back_script(new: Correction, account_id: str, parts: list[tuple[int, Part]], now: datetime) -> Script[None]:
    old = {row[0]: _old(row) for row in (yield Query(_OLD, {"ids": sorted({part.lot_id for _, part in parts})}))}
    lots: list[NewLot] = []
    entries: list[LotEntry] = []
    for number, (sequence, part) in enumerate(parts):
        lot_id, kind, was = part.lot_id, LotChange.RESTORE, old[part.lot_id]
        if was.over_at(now):
            lot_id, kind = f"{new.id}:{number}", LotChange.GRANT
            lots.append(_replacement(new, account_id, (lot_id, part), was, now))
        entries.append(LotEntry(new.id, number, lot_id, kind, part.nano, (new.charge_id, sequence)))
    yield from write_lots_script(lots)
    yield from write_entries_script(entries)


def _replacement(new: Correction, account_id: str, named: tuple[str, Part], was: _Old, now: datetime) -> NewLot:
    lot_id, part = named
    terms = LotTerms(lot_id, was.kind, was.priority, now, None if was.expires_at is None else now + GRACE)
    origin = (LotSource.CORRECTION, new.charge_id, new.reason, now)
    return NewLot(terms, account_id, was.funding_account_id, new.id, part.nano, *origin, replaces_lot_id=part.lot_id)


def _old(row: Any) -> _Old:
    expires_at, ended_at = (None if value is None else read_time(value) for value in (row[3], row[5]))
    return _Old(LotKind(row[1]), row[2], expires_at, row[4], ended_at)
