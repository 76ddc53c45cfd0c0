"""Scripts over pools and leases: what gateway processes take from each other's reach, spend, and give back.

Every script that changes pools locks them in the order of their ids before anything else, and leases only after that.
Two such scripts in one transaction could still wait for each other's transactions in a circle: have one, which is why
`takes_script` also gives back.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from sqlalchemy import Table as SqlTable

from galerne.kernel import Increase, Insert, Query, Script
from galerne.metering.limit_tables import LimitLeaseRow, LimitPoolRow
from galerne.metering.limits import PoolSpec
from galerne.metering.pool_laws import (
    EMPTY,
    HELD_RETRY_MS,
    PoolState,
    Short,
    Take,
    Taken,
    added,
    granted,
    left,
    resets_at_ms,
    retry_after_ms,
    rolled,
)

_POOLS = cast(SqlTable, LimitPoolRow.__table__)
_LEASES = cast(SqlTable, LimitLeaseRow.__table__)
_LEASE_COLUMNS = ("id", "pool_id", "holder", "amount", "spent", "window_start_ms", "expires_at_ms")

_LOCK = "SELECT id, taken, since_ms FROM limit_pools WHERE id IN :ids ORDER BY id FOR UPDATE"
_LOCK_OF_RULE = "SELECT id FROM limit_pools WHERE rule_id = :rule_id ORDER BY id FOR UPDATE"
_POOLS_OF_LEASES = "SELECT pool_id FROM limit_leases WHERE id IN :ids"
_LEASES_HELD = "SELECT id, amount, spent, expires_at_ms FROM limit_leases WHERE id IN :ids"
_END_LEASES = """
DELETE FROM limit_leases WHERE id IN :ids AND expires_at_ms <= :until_ms
RETURNING pool_id, amount, spent, window_start_ms"""
_RENEW = "UPDATE limit_leases SET expires_at_ms = :until_ms WHERE id IN :ids RETURNING id"
_EXPIRED = """
SELECT id, pool_id FROM limit_leases WHERE expires_at_ms <= :now_ms ORDER BY expires_at_ms, id LIMIT :most"""
_UNSPENT = """
SELECT pool_id, window_start_ms, CAST(SUM(amount - spent) AS BIGINT) FROM limit_leases
WHERE pool_id IN :ids GROUP BY pool_id, window_start_ms"""
_END_OF_TIME_MS = 2**62


@dataclass(slots=True)
class _Lease:
    id: str
    pool_id: str
    holder: str
    window_start_ms: int
    amount: int = 0
    spent: int = 0
    expires_at_ms: int = 0
    stored: tuple[int, int] | None = None  # amount and end as the database has them, if it has


def takes_script(takes: Sequence[Take], now_ms: int, give_back: Collection[str] = ()) -> Script[list[Taken | Short]]:
    """What each of `takes` gets, after the leases `give_back` were given back; one lease grows for each holder, pool
    and window, and its end moves to the newest `expires_at_ms`.
    """
    returning = yield from _pools_of_leases(give_back)
    yield from _create(take.pool for take in takes if not take.seen)
    states = yield from _locked({take.pool.id for take in takes} | returning)
    lost = [take.pool for take in takes if take.pool.id not in states]
    if lost:  # deleted with its rule meanwhile
        yield from _create(lost)
        states |= yield from _locked({pool.id for pool in lost})
    before = dict(states)
    yield from _end_leases(give_back, _END_OF_TIME_MS, states)
    leases = yield from _leases_of(takes, states, now_ms)
    answers = [_answer(take, states, leases, now_ms) for take in takes]
    yield _changes(before, states)
    yield from _write_leases(leases.values())
    return (yield from _sooner(takes, answers, states))


def spend_script(amounts: Mapping[str, int]) -> Script[None]:
    """Record what was used of leases, by their ids, in the transaction that records the use itself."""
    yield Increase(_LEASES, "id", ("spent",), {lease_id: (amount,) for lease_id, amount in amounts.items()})


def renew_script(lease_ids: Collection[str], expires_at_ms: int) -> Script[frozenset[str]]:
    """Move the end of leases; returns those that still exist: the others have been reclaimed."""
    if not lease_ids:
        return frozenset()
    rows = yield Query(_RENEW, {"ids": sorted(lease_ids), "until_ms": expires_at_ms})
    return frozenset(row[0] for row in rows)


def reclaim_script(now_ms: int, limit: int = 100) -> Script[int]:
    """End the leases whose time is over, at most `limit`, as if they were given back; returns how many.

    Safe from any process at any time; one that its holder renews at this moment stays.
    """
    expired = yield Query(_EXPIRED, {"now_ms": now_ms, "most": limit})
    states = yield from _locked({row[1] for row in expired})
    before = dict(states)
    count = yield from _end_leases([row[0] for row in expired], now_ms, states)
    yield _changes(before, states)
    return count


def forget_pools_script(rule_id: str) -> Script[None]:
    """Delete the pools of a rule, and their leases; a process that still knows the rule makes its pool anew."""
    yield Query(_LOCK_OF_RULE, {"rule_id": rule_id})
    yield Query("DELETE FROM limit_pools WHERE rule_id = :rule_id", {"rule_id": rule_id})


def _pools_of_leases(lease_ids: Collection[str]) -> Script[set[str]]:
    if not lease_ids:
        return set()
    rows = yield Query(_POOLS_OF_LEASES, {"ids": sorted(lease_ids)})
    return {row[0] for row in rows}


def _create(pools: Iterable[PoolSpec]) -> Script[None]:
    # In one order everywhere, and before any lock: whoever waits here for another one's insert holds nothing it wants.
    rows = [(pool_id, rule_id, 0, 0) for pool_id, rule_id in sorted({(pool.id, pool.rule_id) for pool in pools})]
    if rows:
        yield Insert(_POOLS, ("id", "rule_id", "taken", "since_ms"), rows, once_by="id")


def _locked(pool_ids: Collection[str]) -> Script[dict[str, PoolState]]:
    if not pool_ids:
        return {}
    rows = yield Query(_LOCK, {"ids": sorted(pool_ids)})
    return {pool_id: PoolState(taken, since_ms) for pool_id, taken, since_ms in rows}


def _end_leases(lease_ids: Collection[str], until_ms: int, states: dict[str, PoolState]) -> Script[int]:
    if not lease_ids:
        return 0
    rows = yield Query(_END_LEASES, {"ids": sorted(lease_ids), "until_ms": until_ms})
    for pool_id, amount, spent, window_start_ms in rows:
        state = states[pool_id]
        if state.since_ms == window_start_ms:
            states[pool_id] = PoolState(max(0, state.taken - amount + spent), state.since_ms)
    return len(rows)


def _leases_of(takes: Sequence[Take], states: Mapping[str, PoolState], now_ms: int) -> Script[dict[str, _Lease]]:
    leases: dict[str, _Lease] = {}
    for take in takes:
        if _has_lease(take.pool):
            state = rolled(take.pool, states[take.pool.id], now_ms)
            lease_id = _lease_id(take, state)
            leases[lease_id] = _Lease(lease_id, take.pool.id, take.holder, state.since_ms)
    if leases:
        rows = yield Query(_LEASES_HELD, {"ids": sorted(leases)})
        for lease_id, amount, spent, expires_at_ms in rows:
            lease = leases[lease_id]
            lease.amount, lease.spent, lease.expires_at_ms = amount, spent, expires_at_ms
            lease.stored = (amount, expires_at_ms)
    return leases


def _answer(take: Take, states: dict[str, PoolState], leases: Mapping[str, _Lease], now_ms: int) -> Taken | Short:
    pool = take.pool
    state = rolled(pool, states[pool.id], now_ms)
    lease = leases[_lease_id(take, state)] if _has_lease(pool) else None
    correction = _correction(take, state, lease)
    if correction:
        states[pool.id] = state = added(pool, state, correction)
    amount = granted(pool, state, take)
    if amount:
        states[pool.id] = state = added(pool, state, amount)
    if lease is not None:
        lease.amount += correction + (amount or 0)
        lease.expires_at_ms = max(lease.expires_at_ms, take.expires_at_ms)
    if amount is None:
        pause_ms = retry_after_ms(pool, state, take.least, now_ms)
        return Short(pool.id, left(pool, state), pause_ms, resets_at_ms(pool, state))
    return Taken(
        pool.id,
        amount,
        left(pool, state),
        state.since_ms if lease is not None else 0,
        resets_at_ms(pool, state),
        take.expires_at_ms,
        None if lease is None else lease.id,
        0 if lease is None else lease.amount,
    )


def _sooner(
    takes: Sequence[Take], answers: list[Taken | Short], states: Mapping[str, PoolState]
) -> Script[list[Taken | Short]]:
    # A window that is short because requests under way reserve what they may not use need not be waited out.
    short = [take.pool for take, got in zip(takes, answers, strict=True) if isinstance(got, Short)]
    pools = {pool.id for pool in short if pool.law == "window"}
    if not pools:
        return answers
    rows = yield Query(_UNSPENT, {"ids": sorted(pools)})
    unspent = {pool_id: amount for pool_id, since_ms, amount in rows if states[pool_id].since_ms == since_ms}
    return [
        replace(got, retry_after_ms=min(got.retry_after_ms, HELD_RETRY_MS))
        if isinstance(got, Short) and got.left + unspent.get(take.pool.id, 0) >= take.least
        else got
        for take, got in zip(takes, answers, strict=True)
    ]


def _correction(take: Take, state: PoolState, lease: _Lease | None) -> int:
    if lease is None or take.correction == 0:
        return take.correction
    if take.window_start_ms != state.since_ms:
        return 0
    return max(take.correction, min(0, lease.spent - lease.amount))  # no more goes back than is there


def _changes(before: Mapping[str, PoolState], after: Mapping[str, PoolState]) -> Increase:
    amounts = {
        pool_id: (state.taken - before.get(pool_id, EMPTY).taken, state.since_ms - before.get(pool_id, EMPTY).since_ms)
        for pool_id, state in after.items()
        if state != before.get(pool_id, EMPTY)
    }
    return Increase(_POOLS, "id", ("taken", "since_ms"), amounts)


def _write_leases(leases: Iterable[_Lease]) -> Script[None]:
    new: list[tuple[object, ...]] = []
    grown: dict[str, tuple[int, ...]] = {}
    for lease in leases:
        if lease.stored is None:
            if lease.amount:
                new.append(tuple(getattr(lease, name) for name in _LEASE_COLUMNS))
        elif lease.stored != (lease.amount, lease.expires_at_ms):
            grown[lease.id] = (lease.amount - lease.stored[0], lease.expires_at_ms - lease.stored[1])
    if new:
        yield Insert(_LEASES, _LEASE_COLUMNS, new)
    if grown:
        yield Increase(_LEASES, "id", ("amount", "expires_at_ms"), grown)


def _has_lease(pool: PoolSpec) -> bool:
    return pool.law != "bucket"


def _lease_id(take: Take, state: PoolState) -> str:
    return f"{take.holder}:{take.pool.id}:{state.since_ms}"
