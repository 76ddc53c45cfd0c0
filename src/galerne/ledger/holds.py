"""Holds as scripts: money set aside, settled in parts, extended in time, and given back.

Each first locks the accounts that it moves, in the order of their ids, then the holds; see `lock_accounts_script`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table as SqlTable

from galerne.kernel import BadRequest, Conflict, Insert, NotFound, Query, Script
from galerne.ledger.accounts import Balance, lock_accounts_script, wait_for_accounts_script
from galerne.ledger.chart import LARGEST_NANO, TransferKind
from galerne.ledger.tables import HoldRow, TransferRow

_HOLDS = cast(SqlTable, HoldRow.__table__)
_TRANSFERS = cast(SqlTable, TransferRow.__table__)
_HOLD_COLUMNS = ("id", "debit_account_id", "credit_account_id", "amount_nano", "holder", "at", "expires_at_ms")
_TRANSFER_COLUMNS = ("id", "kind", "hold_id", "debit_account_id", "credit_account_id", "amount_nano", "reason", "at")
_SETTLE, _RELEASE = str(TransferKind.SETTLE), str(TransferKind.RELEASE)

_HOLD = """
SELECT debit_account_id, credit_account_id, holder, amount_nano, closed FROM ledger_holds WHERE id = :id"""
_OPEN_HOLDS = """
SELECT id, debit_account_id, credit_account_id, amount_nano, settled_nano, holder, expires_at_ms FROM ledger_holds
WHERE id IN :ids AND NOT closed AND expires_at_ms <= :latest_ms ORDER BY id"""
_LOCK_OPEN_HOLDS = f"{_OPEN_HOLDS} FOR UPDATE"
_EXPIRED = """
SELECT id, debit_account_id, credit_account_id FROM ledger_holds
WHERE NOT closed AND expires_at_ms <= :now_ms ORDER BY expires_at_ms, id LIMIT :most"""
_RENEW = "UPDATE ledger_holds SET expires_at_ms = :expires_at_ms WHERE id IN :ids AND expires_at_ms < :expires_at_ms"
_RECORDED = """
SELECT id, kind, hold_id, debit_account_id, credit_account_id, amount_nano, reason FROM ledger_transfers
WHERE id IN :ids"""
_NO_LATER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class NewHold:
    """A wish to set aside `most_nano`, or what there is if that is at least `least_nano`, for later settlements.

    `holder` names who spends from it, for whoever recovers the hold after `expires_at_ms` (milliseconds of Unix time).
    """

    id: str
    debit_account_id: str
    credit_account_id: str
    least_nano: int
    most_nano: int
    holder: str
    expires_at_ms: int
    at: datetime

    def __post_init__(self) -> None:
        if not 0 < self.least_nano <= self.most_nano <= LARGEST_NANO:
            raise BadRequest("A hold asks for at least 1 nano-unit and for no more than its most.", param="least_nano")


@dataclass(frozen=True, slots=True)
class Granted:
    """What was set aside; what the account still has after that, None if it has no bound."""

    hold_id: str
    amount_nano: int
    available_nano_after: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was set aside, for there is only this much."""

    available_nano: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """A part of a hold that is owed for good; `id` is the settled request's. One of 0 moves and writes nothing."""

    id: str
    hold_id: str
    debit_account_id: str
    credit_account_id: str
    amount_nano: int
    at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold with something left."""

    id: str
    debit_account_id: str
    credit_account_id: str
    amount_nano: int
    settled_nano: int
    holder: str
    expires_at_ms: int

    @property
    def left_nano(self) -> int:
        """What is neither settled nor released."""
        return self.amount_nano - self.settled_nano


def hold_script(new: NewHold) -> Script[Granted | Refused]:
    """Set aside as much as there is, up to the most, unless it is less than the least.

    A hold that is there already with the same accounts and holder is granted again as it was (a confirmation was
    lost), and refused once it is closed; with others it raises `Conflict`. An organisation without the account has
    nothing; raises `NotFound` if the other account is not open, which is the house's to put right.
    """
    balances = yield from lock_accounts_script({new.debit_account_id, new.credit_account_id})
    debit = balances.get(new.debit_account_id)
    if debit is None:
        return Refused(0)
    if new.credit_account_id not in balances:
        raise NotFound(f"The account '{new.credit_account_id}' is not open.")
    available = debit.available_nano
    rows = yield Query(_HOLD, {"id": new.id})
    if rows:
        return _granted_before(new, debit, rows[0])
    amount = new.most_nano if available is None else min(available, new.most_nano)
    if amount < new.least_nano:
        return Refused(max(amount, 0))
    terms = (new.id, new.debit_account_id, new.credit_account_id, amount, new.holder, new.at, new.expires_at_ms)
    yield Insert(_HOLDS, _HOLD_COLUMNS, [terms])
    return Granted(new.id, amount, None if available is None else available - amount)


def settle_script(settlements: Sequence[Settlement]) -> Script[None]:
    """Take the settlements' amounts from their holds, each once; at most three statements, however many there are.

    One that is recorded with the same content, `at` aside, changes nothing; other content raises `Conflict`. The
    database refuses what a hold no longer has, and accounts that are not the hold's.
    """
    offered = _distinct(settlements)
    if not offered:
        return
    accounts = {each.debit_account_id for each in settlements} | {each.credit_account_id for each in settlements}
    yield from wait_for_accounts_script(accounts)
    for row in (yield Query(_RECORDED, {"ids": list(offered)})):
        recorded, settlement = tuple(row), offered.pop(row[0])
        if recorded != _content(settlement):
            raise Conflict(f"The transfer '{settlement.id}' is recorded with other content.")
    yield Insert(_TRANSFERS, _TRANSFER_COLUMNS, [_row(each) for each in offered.values() if each.amount_nano])


def release_script(hold_ids: Collection[str], at: datetime) -> Script[Mapping[str, int]]:
    """Close the holds that are open; how much each of them gave back."""
    found = yield from _locked_open(hold_ids, _NO_LATER)
    yield Insert(_TRANSFERS, _TRANSFER_COLUMNS, [_release_row(each, at) for each in found])
    return {each.id: each.left_nano for each in found}


def renew_script(hold_ids: Collection[str], expires_at_ms: int) -> Script[frozenset[str]]:
    """Have the holds that are open expire no earlier than that; which ones are open.

    Whoever does not find its hold among them has lost it: it was recovered after it expired.
    """
    found = yield from _locked_open(hold_ids, _NO_LATER)
    ids = [each.id for each in found]
    if ids:
        yield Query(_RENEW, {"ids": ids, "expires_at_ms": expires_at_ms})
    return frozenset(ids)


def expired_script(now_ms: int, most: int) -> Script[list[OpenHold]]:
    """At most so many of the holds that expired and are open, locked: nobody renews or settles them meanwhile.

    In the same transaction settle what was recorded as delivered, then release them.
    """
    rows = yield Query(_EXPIRED, {"now_ms": now_ms, "most": most})
    return (yield from _locked_open([row[0] for row in rows], now_ms))


def _granted_before(new: NewHold, debit: Balance, row: Sequence[Any]) -> Granted | Refused:
    debit_id, credit_id, holder, amount, closed = row
    if (debit_id, credit_id, holder) != (new.debit_account_id, new.credit_account_id, new.holder):
        raise Conflict(f"The hold '{new.id}' is there with other content.")
    available = debit.available_nano
    return Refused(max(available or 0, 0)) if closed else Granted(new.id, amount, available)


def _distinct(settlements: Sequence[Settlement]) -> dict[str, Settlement]:
    offered = {each.id: each for each in settlements}
    if len(offered) < len(settlements):
        for each in settlements:
            if _content(offered[each.id]) != _content(each):
                raise Conflict(f"The transfer '{each.id}' is asked for twice with different content.")
    return offered


def _content(settlement: Settlement) -> tuple[Any, ...]:
    each = settlement
    accounts = (each.debit_account_id, each.credit_account_id)
    return (each.id, _SETTLE, each.hold_id, *accounts, each.amount_nano, each.reason)


def _row(settlement: Settlement) -> tuple[Any, ...]:
    return (*_content(settlement), settlement.at)


def _release_row(hold: OpenHold, at: datetime) -> tuple[Any, ...]:
    accounts = (hold.debit_account_id, hold.credit_account_id)
    return (f"release:{hold.id}", _RELEASE, hold.id, *accounts, hold.left_nano, None, at)


def _locked_open(ids: Collection[str], latest_ms: int) -> Script[list[OpenHold]]:
    # Read to learn the accounts, which never change, and again once their locks have made everybody else wait.
    values = {"ids": sorted(ids), "latest_ms": latest_ms}
    rows = (yield Query(_OPEN_HOLDS, values)) if ids else ()
    if not rows:
        return []
    yield from wait_for_accounts_script({account for row in rows for account in row[1:3]})
    return [OpenHold(*row) for row in (yield Query(_LOCK_OPEN_HOLDS, values))]
