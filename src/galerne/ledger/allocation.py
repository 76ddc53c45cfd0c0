"""Burning settled spend onto lots, in the order in which it was recorded; never on the path of a request.

The order is the transfers' `seq`. Of one account the transfers that can be seen are always a beginning of all: whoever
writes one has the account locked until its commit. So a cursor says how far it has come; who moves it has locked it,
which lets several allocators run at once, be killed and start again: what was committed is burned once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from galerne.kernel import Conflict, Query, Script, invariant
from galerne.ledger.accounts import lock_accounts_script
from galerne.ledger.chart import AccountKind
from galerne.ledger.lot_rows import (
    Cursor,
    LotEntry,
    LotState,
    NewLot,
    cursor_script,
    move_cursor_script,
    open_cursor_script,
    read_time,
    states_script,
    write_entries_script,
    write_lots_script,
)
from galerne.ledger.lots import USUAL_PRIORITY, LotBook, LotChange, LotKind, LotSource, LotTerms

USUAL_BATCH = 1000
"""Transfers in one transaction: some 20 ms, in which SQLite lets nobody else write."""

_MOST_BEHIND = 20
_NOT_BURNED = """
SELECT * FROM (
  SELECT transfer.seq, transfer.id, -transfer.amount_nano, coalesce(hold.at, transfer.at), transfer.credit_account_id,
    coalesce(transfer.reason, ''), 1
  FROM ledger_transfers AS transfer LEFT JOIN ledger_holds AS hold ON hold.id = transfer.hold_id
  WHERE transfer.debit_account_id = :account_id AND transfer.seq > :seq AND transfer.kind IN ('post', 'settle')
  ORDER BY transfer.seq LIMIT :most
) AS debits
UNION ALL SELECT * FROM (
  SELECT transfer.seq, transfer.id, transfer.amount_nano, transfer.at, transfer.debit_account_id,
    coalesce(transfer.reason, ''),
    CASE WHEN EXISTS (SELECT 1 FROM ledger_lot_entries AS entry WHERE entry.transfer_id = transfer.id) THEN 1 ELSE 0 END
  FROM ledger_transfers AS transfer
  WHERE transfer.credit_account_id = :account_id AND transfer.seq > :seq AND transfer.kind = 'post'
  ORDER BY transfer.seq LIMIT :most
) AS credits
ORDER BY 1 LIMIT :most"""
_WITHOUT_LOT = """
SELECT 1 FROM ledger_transfers AS transfer
WHERE transfer.credit_account_id = :account_id AND transfer.seq > :seq AND transfer.kind = 'post'
  AND NOT EXISTS (SELECT 1 FROM ledger_lot_entries AS entry WHERE entry.transfer_id = transfer.id) LIMIT 1"""
_BEHIND = """
SELECT account.id FROM ledger_accounts AS account
  LEFT JOIN ledger_lot_cursors AS lots ON lots.account_id = account.id
WHERE account.kind = :kind AND (lots.account_id IS NULL OR account.debits_posted_nano > lots.debits_nano)
ORDER BY account.id"""


@dataclass(frozen=True, slots=True)
class Allocated:
    """What one step did: transfers that were dealt with, whether there are more."""

    transfers: int
    more: bool


@dataclass(slots=True)
class _Step:
    """What is to be written of one step."""

    cursor: Cursor
    seen: int = 0
    lots: list[NewLot] = field(default_factory=list[NewLot])
    entries: list[LotEntry] = field(default_factory=list[LotEntry])
    stopped: bool = False


def behind_script() -> Script[list[str]]:
    """The prepaid accounts with debits that are not burned yet, or that were never looked at."""
    return [row[0] for row in (yield Query(_BEHIND, {"kind": str(AccountKind.PREPAID)}))]


def allocate_script(account_id: str, most: int = USUAL_BATCH) -> Script[Allocated]:
    """Burn the next transfers of one account, at most so many; in a transaction of its own.

    It waits for other allocators of the account, and locks out neither its holds nor its settlements, but for the one
    step that meets money which was posted without a lot and makes one: paid, never expiring.
    """
    cursor = yield from cursor_script(account_id, lock=False)
    values = {"account_id": account_id, "seq": 0 if cursor is None else cursor.seq}
    adopts = cursor is None or bool((yield Query(_WITHOUT_LOT, values)))
    if adopts:
        yield from lock_accounts_script({account_id})
        yield from open_cursor_script(account_id)
    return (yield from _advance_script(account_id, most, adopts=adopts))


def catch_up_script(account_id: str, known: Sequence[str]) -> Script[tuple[Cursor, list[LotState]]]:
    """Burn all of an account; its cursor, which nothing can outrun until the transaction ends, and its lots.

    Locks the accounts that are `known` to be needed, this one among them, and the cursor. Raises `Conflict` when very
    many transfers wait: that is work for transactions of their own.
    """
    balances = yield from lock_accounts_script({account_id, *known})
    invariant(account_id in balances, "lots are of an account that is open")
    yield from open_cursor_script(account_id)
    for _ in range(_MOST_BEHIND):
        done = yield from _advance_script(account_id, USUAL_BATCH, adopts=True)
        if not done.more:
            break
    else:
        raise Conflict(f"'{account_id}' has very many transfers that are not burned onto lots; burn them first.")
    cursor = yield from cursor_script(account_id, lock=True)
    invariant(cursor is not None, "an account that was caught up with has a cursor")
    states = yield from states_script(account_id)
    balance, burned = balances[account_id], cursor or Cursor(0, 0)
    invariant(burned.debits_nano == balance.debits_posted_nano, "a debit was passed over when lots were burned")
    invariant(sum(each.left_nano for each in states) == balance.credit_nano, "lots are not what their account has")
    return burned, states


def _advance_script(account_id: str, most: int, *, adopts: bool) -> Script[Allocated]:
    cursor = yield from cursor_script(account_id, lock=True)
    invariant(cursor is not None, "a cursor is opened before it moves")
    step = _Step(cursor or Cursor(0, 0))
    rows = yield Query(_NOT_BURNED, {"account_id": account_id, "seq": step.cursor.seq, "most": most})
    if not rows:
        return Allocated(0, more=False)
    states = yield from states_script(account_id)
    _burn(step, account_id, rows, states, adopts=adopts)
    yield from write_lots_script(step.lots)
    yield from write_entries_script(step.entries)
    yield from move_cursor_script(account_id, step.cursor)
    return Allocated(step.seen, more=step.stopped or len(rows) == most)


def _burn(step: _Step, account_id: str, rows: Sequence[Any], states: Sequence[LotState], *, adopts: bool) -> None:
    came = [each for each in states if each.came]
    book = LotBook((each.terms, each.left_nano) for each in came if each.seq <= step.cursor.seq)
    coming: dict[str, list[LotState]] = {}
    for each in came:
        if each.seq > step.cursor.seq:
            coming.setdefault(each.transfer_id, []).append(each)
    debits = step.cursor.debits_nano
    for seq, transfer_id, nano, at, other, reason, has_lot in rows:
        if nano > 0 and not has_lot and not adopts:
            step.stopped = True  # it was posted a moment ago: the next step will have locked the account
            return
        if nano < 0:
            debits -= nano
            _burn_one(step, book, account_id, (transfer_id, -nano, at))
        elif has_lot:
            for each in coming.get(transfer_id, ()):
                book.add(each.terms, each.left_nano)
        else:
            lot = _adopted(account_id, (transfer_id, nano, at), other, reason)
            step.lots.append(lot)
            step.entries.append(LotEntry(transfer_id, 0, transfer_id, LotChange.GRANT, nano))
            book.add(lot.terms, nano)
        step.cursor = Cursor(seq, debits)
        step.seen += 1


def _burn_one(step: _Step, book: LotBook, account_id: str, debit: tuple[str, int, Any]) -> None:
    transfer_id, nano, at = debit
    parts = book.take(nano, read_time(at))
    short = nano - sum(part.nano for part in parts)
    invariant(not short, f"the transfer '{transfer_id}' takes {short} more from '{account_id}' than its lots have")
    step.entries += [
        LotEntry(transfer_id, number, part.lot_id, LotChange.BURN, part.nano) for number, part in enumerate(parts)
    ]


def _adopted(account_id: str, credit: tuple[str, int, Any], funding_account_id: str, reason: str) -> NewLot:
    transfer_id, nano, at = credit
    terms = LotTerms(transfer_id, LotKind.PAID, USUAL_PRIORITY, read_time(at), None)
    origin = (LotSource.TRANSFER, None, reason, terms.effective_at)
    return NewLot(terms, account_id, funding_account_id, transfer_id, nano, *origin)
