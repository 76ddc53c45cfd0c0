"""Lots that begin and end with time, as scripts: money of a lot comes, what is left of one expires or goes back.

Only what is neither burned nor held can go. Holds are not of a lot, so they are burned here as if they were settled
now: what is left of a lot after all of them is free.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table as SqlTable

from galerne.kernel import Conflict, Insert, Query, Script
from galerne.ledger.allocation import catch_up_script
from galerne.ledger.chart import TransferKind
from galerne.ledger.lot_rows import (
    Cursor,
    LotEntry,
    LotState,
    move_cursor_script,
    read_time,
    seqs_script,
    states_script,
    write_end_script,
    write_entries_script,
)
from galerne.ledger.lots import LotBook, LotChange, burn_order
from galerne.ledger.tables import TransferRow

_TRANSFERS = cast(SqlTable, TransferRow.__table__)
_COLUMNS = ("id", "kind", "debit_account_id", "credit_account_id", "amount_nano", "reason", "at")
_POST = str(TransferKind.POST)
_HELD = """
SELECT amount_nano - settled_nano - released_nano, at FROM ledger_holds
WHERE debit_account_id = :account_id AND NOT closed ORDER BY at, id"""
_LAPSES = """
SELECT lot_id, count(*) FROM ledger_lot_entries WHERE lot_id IN :ids AND kind IN ('expire', 'void') GROUP BY lot_id"""
_VOIDED = "SELECT reason FROM ledger_lot_ends WHERE lot_id = :lot_id"


@dataclass(frozen=True, slots=True)
class Lapse:
    """Money that moved because of a lot's time: its transfer, the lot, what happened, how much."""

    transfer_id: str
    lot_id: str
    kind: LotChange
    nano: int


def sweep_script(account_id: str, breakage_id: str, now: datetime) -> Script[list[Lapse]]:
    """Bring the money of lots that have become effective, then book what is left of those that are over.

    What expired goes to the account of breakage, what was voided back to where it came from. What a hold may still
    take stays until the hold is resolved, for a later sweep. Nothing to do costs one query.
    """
    before = yield from states_script(account_id)
    if not any(_is_due(each, now) for each in before):
        return []
    known = {breakage_id, *(each.funding_account_id for each in before)}
    cursor, states = yield from catch_up_script(account_id, sorted(known))
    coming = [each for each in states if _begins(each, now) and each.funding_account_id in known]
    lapses = yield from _post_script(account_id, cursor, _comings(account_id, coming), now)
    if coming:
        cursor, states = yield from catch_up_script(account_id, sorted(known))
    over = [each for each in states if each.came and each.over_at(now) and each.funding_account_id in known]
    if not over:
        return lapses
    free = yield from _free_script(account_id, states)
    numbers = {row[0]: row[1] for row in (yield Query(_LAPSES, {"ids": [each.terms.id for each in over]}))}
    goings: list[_Move] = []
    for each in sorted(over, key=lambda one: burn_order(one.terms)):
        if nano := free.left_nano(each.terms.id):
            voided = each.ended_at is not None
            kind, other = (LotChange.VOID, each.funding_account_id) if voided else (LotChange.EXPIRE, breakage_id)
            name = f"{kind}:{each.terms.id}:{numbers.get(each.terms.id, 0)}"
            goings.append(_Move(Lapse(name, each.terms.id, kind, nano), account_id, other))
    return lapses + (yield from _post_script(account_id, cursor, goings, now))


def void_script(account_id: str, lot_id: str, breakage_id: str, now: datetime, reason: str) -> Script[bool]:
    """End a lot of that account for good; the account is to be swept then. False if it was ended before.

    Raises `Conflict` when it was voided for another reason or has nothing left.
    """
    before = yield from states_script(account_id)
    # All that the sweep needs, for accounts are locked before the cursor is.
    _, states = yield from catch_up_script(account_id, [breakage_id, *(each.funding_account_id for each in before)])
    for (recorded,) in (yield Query(_VOIDED, {"lot_id": lot_id})):
        if recorded == reason:
            return False
        raise Conflict(f"The lot '{lot_id}' was voided before, for another reason.")
    if all(each.terms.id != lot_id for each in states):
        raise Conflict(f"Nothing is left of the lot '{lot_id}'.")
    yield from write_end_script(lot_id, reason, now)
    return True


@dataclass(frozen=True, slots=True)
class _Move:
    lapse: Lapse
    debit_account_id: str
    credit_account_id: str


def _begins(lot: LotState, now: datetime) -> bool:
    return not lot.came and lot.ended_at is None and lot.terms.effective_at <= now


def _is_due(lot: LotState, now: datetime) -> bool:
    return _begins(lot, now) or (lot.came and lot.over_at(now))


def _comings(account_id: str, coming: Iterable[LotState]) -> list[_Move]:
    return [
        _Move(
            Lapse(each.transfer_id, each.terms.id, LotChange.GRANT, each.amount_nano),
            each.funding_account_id,
            account_id,
        )
        for each in coming
    ]


def _free_script(account_id: str, states: Sequence[LotState]) -> Script[LotBook]:
    book = LotBook((each.terms, each.left_nano) for each in states if each.came)
    for nano, at in (yield Query(_HELD, {"account_id": account_id})):
        book.take(nano, read_time(at))
    return book


def _post_script(account_id: str, cursor: Cursor, moves: Sequence[_Move], now: datetime) -> Script[list[Lapse]]:
    if not moves:
        return []
    lapses = [each.lapse for each in moves]
    rows = [_row(each, now) for each in moves]
    yield Insert(_TRANSFERS, _COLUMNS, rows)
    yield from write_entries_script(
        [LotEntry(each.transfer_id, 0, each.lot_id, each.kind, each.nano) for each in lapses]
    )
    seqs = yield from seqs_script([each.transfer_id for each in lapses])
    gone = sum(each.lapse.nano for each in moves if each.debit_account_id == account_id)
    yield from move_cursor_script(account_id, Cursor(max(seqs.values()), cursor.debits_nano + gone))
    return lapses


def _row(move: _Move, now: datetime) -> tuple[Any, ...]:
    lapse = move.lapse
    reason = f"{lapse.kind} of lot {lapse.lot_id}"
    return (lapse.transfer_id, _POST, move.debit_account_id, move.credit_account_id, lapse.nano, reason, now)
