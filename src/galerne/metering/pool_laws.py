"""How a pool fills, and how much of it one taker gets: pure arithmetic of (state, wish, epoch milliseconds).

Integers throughout, so that no process gains from another one's rounding: a bucket counts sixty-thousandths of a unit,
for `amount` of them drain in each millisecond of a minute.
"""

from dataclasses import dataclass, replace

from galerne.metering.limit_windows import window_end_ms, window_start_ms
from galerne.metering.limits import PoolSpec

SHARE = 16
"""What one taker gets beyond the need that it names is at most this part of what the pool has left."""
GAUGE_RETRY_MS = 200
"""When to ask a gauge again, since nobody knows when something is given back."""
HELD_RETRY_MS = 1000
"""When to ask a window again whose rest is held by requests under way and by processes, which may give some back."""

_PER_UNIT = 60_000
_MOST_TAKEN = 2**62


@dataclass(frozen=True, slots=True)
class PoolState:
    """What has been taken since `since_ms`, in the pool's own units (see `limit_pools`)."""

    taken: int
    since_ms: int


EMPTY = PoolState(0, 0)
"""A pool that nobody has used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """What one process, `holder`, wants of a pool: at least `least` or nothing, `need` for requests that wait, at most
    `most`, the rest being for what comes next.

    `correction` is counted first, whatever is left: what was used beyond what had been taken, or, negative, what was
    not; it concerns the window that began at `window_start_ms` and is dropped in another one. `seen` spares a
    statement for a pool that has answered before.
    """

    pool: PoolSpec
    holder: str
    least: int
    need: int
    most: int
    expires_at_ms: int
    correction: int = 0
    window_start_ms: int | None = None
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What was got: `amount`, with `left_after` in the pool, full again at `resets_at_ms` (None: nobody knows).

    `lease_id` names the lease that holds it, and `lease_amount` all that this holds now; a bucket has none.
    """

    pool_id: str
    amount: int
    left_after: int
    window_start_ms: int
    resets_at_ms: int | None
    expires_at_ms: int
    lease_id: str | None = None
    lease_amount: int = 0


@dataclass(frozen=True, slots=True)
class Short:
    """Less than `least` is left: `left`; after `retry_after_ms` there may be enough, soon if leases hold it unspent."""

    pool_id: str
    left: int
    retry_after_ms: int
    resets_at_ms: int | None


def rolled(pool: PoolSpec, state: PoolState, now_ms: int) -> PoolState:
    """The state at `now_ms`: a bucket drained until then, a window begun anew if it is over."""
    if pool.law == "gauge":
        return state
    if pool.law == "bucket":
        until_ms = max(now_ms, state.since_ms)
        return PoolState(max(0, state.taken - (until_ms - state.since_ms) * pool.amount), until_ms)
    start_ms = window_start_ms(pool.window, now_ms, state.since_ms)
    return state if start_ms == state.since_ms else PoolState(0, start_ms)


def added(pool: PoolSpec, state: PoolState, amount: int) -> PoolState:
    """The state after `amount` was taken, or given back when negative; never less than nothing is taken.

    Nor more than the database can count: whatever a request asks for or an engine reports, others' writes share it.
    """
    return replace(state, taken=min(_MOST_TAKEN, max(0, state.taken + amount * _scale(pool))))


def left(pool: PoolSpec, state: PoolState) -> int:
    """Whole units that may be taken of a rolled state; never negative."""
    return max(0, pool.amount * _scale(pool) - state.taken) // _scale(pool)


def used(pool: PoolSpec, state: PoolState) -> int:
    """Whole units that are taken of a rolled state, a begun one counted."""
    return -(-state.taken // _scale(pool))


def resets_at_ms(pool: PoolSpec, state: PoolState) -> int | None:
    """When a rolled state is as new: a bucket full, a window over; None for a gauge."""
    if pool.law == "bucket":
        return state.since_ms - (-state.taken // pool.amount)
    return None if pool.law == "gauge" else window_end_ms(pool.window, state.since_ms)


def granted(pool: PoolSpec, state: PoolState, take: Take) -> int | None:
    """How much `take` gets of a rolled state, or None when that is less than it can use.

    A bucket that is full lets a larger request than itself pass, and is in debt then; a window never does.
    """
    if take.least == 0 and take.most == 0:
        return 0
    free = (pool.amount * _scale(pool) - state.taken) // _scale(pool)
    least = min(take.least, pool.amount) if pool.law == "bucket" else take.least
    if free < least or free <= 0:
        return None
    return max(take.least, min(free, max(take.need, min(take.most, free // SHARE))))


def retry_after_ms(pool: PoolSpec, state: PoolState, least: int, now_ms: int) -> int:
    """Milliseconds until a rolled state may have `least`."""
    if pool.law == "gauge":
        return GAUGE_RETRY_MS
    if pool.law == "bucket":
        missing = min(least, pool.amount) * _PER_UNIT - (pool.amount * _PER_UNIT - state.taken)
        return max(1, -(-missing // pool.amount))
    return max(1, window_end_ms(pool.window, state.since_ms) - now_ms)


def _scale(pool: PoolSpec) -> int:
    return _PER_UNIT if pool.law == "bucket" else 1
