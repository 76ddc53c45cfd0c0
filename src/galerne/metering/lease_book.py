"""What one process knows of one pool: what it may hand out without asking, and what to ask for next. Pure in time.

Nothing is handed out that the database has not counted as taken, so processes together never exceed a pool. The price
is what one holds while another is refused. With N processes it is at most

    (N - 1) * min(2 * what each used in the busier of its last two seconds, amount / 8)

apart from what requests under way have reserved. Beyond the need of waiting requests a process gets at most a sixteenth
of what the pool had left (`pool_laws.SHARE`) and a second of its recent use; what is more than twice that it gives back
with its next write, and what it has not touched for two seconds (`HELD_MS`) whole, which is why its owner asks `due`
at least once a second. What a bucket gets back waits `RETURN_MS` at most. Near the end of a pool the sixteenth is
nothing, and each process takes exactly what its requests need. A process that died keeps what it held until its lease
is reclaimed.
"""

from msgspec import Struct

from galerne.metering.limit_windows import Window
from galerne.metering.limits import PoolSpec, Quantity
from galerne.metering.pool_laws import SHARE, Short, Take, Taken

HELD_MS = 2000
"""How long a process holds what it does not use."""
REMEMBERED_MS = 1000
"""How long a refusal spares the database a question at most."""
SKEW_MS = 1000
"""How far clocks of processes may differ: a lease is no longer drawn on this long before it ends."""

RETURN_MS = 200
"""How long what a bucket gets back may wait for a write that is made anyway."""

ALONE = 8
"""While the database is away a process may use this part of a limit by the minute on its own."""

_SLOT_MS = 1000
_MINUTE_MS = 60_000
_NEVER_MS = 2**62


class Standing(Struct, frozen=True):
    """Where a pool stands, as far as one process knows; `reset_ms` until it is as new, None if nobody knows."""

    quantity: Quantity
    window: Window
    limit: int
    remaining: int
    reset_ms: int | None


class LeaseBook:
    """One process's account of one pool: `available` may be reserved, `in_flight` is, `unwritten` was used and is not
    yet recorded with the lease; `lease_id` is None for a bucket, and before anything was taken.

    `pool` may be replaced when the rule's amount has changed. One take is under way at a time.
    """

    __slots__ = (
        "_alone_since_ms",
        "_granted",
        "_holder",
        "_is_bucket",
        "_left",
        "_refused_until_ms",
        "_resets_at_ms",
        "_retry_at_ms",
        "_return_at_ms",
        "_returns",
        "_seen_at_ms",
        "_sent",
        "_slot_end_ms",
        "_until_ms",
        "_use",
        "_use_before",
        "_window_start_ms",
        "available",
        "in_flight",
        "lease_id",
        "pool",
        "unwritten",
    )

    def __init__(self, pool: PoolSpec, holder: str) -> None:
        self.pool = pool
        self.available = 0
        self.in_flight = 0
        self.unwritten = 0
        self.lease_id: str | None = None
        self._holder = holder
        self._is_bucket = pool.law == "bucket"
        self._granted: int = 0
        self._left = pool.amount
        self._resets_at_ms: int | None = None
        self._seen_at_ms: int | None = None
        self._refused_until_ms = 0
        self._retry_at_ms = 0
        self._return_at_ms = 0
        self._returns = 0
        self._sent: int = 0
        self._until_ms = _NEVER_MS
        self._window_start_ms: int | None = None
        self._slot_end_ms = 0
        self._use = 0
        self._use_before = 0
        self._alone_since_ms: int | None = None

    def reserve(self, amount: int, now_ms: int) -> bool:
        """Set `amount` aside for a request; False when there is not enough at hand and the pool must be asked."""
        if amount > self.available or now_ms >= self._until_ms:
            return False
        self.available -= amount
        self.in_flight += amount
        if now_ms >= self._slot_end_ms:
            self._roll(now_ms)
        self._use += amount
        return True

    def reserve_unasked(self, amount: int, now_ms: int) -> bool:
        """The same while the database is away: of a bucket what is at hand or to be given back may be used, and beyond
        that an eighth of it (`ALONE`) at once and in each minute, which the pool hears of when it can be asked again.

        So up to eight processes never use more than it allows. The lease of a window or gauge may be another's by now.
        """
        if not self._is_bucket:
            return False
        if self._alone_since_ms is None:
            self._alone_since_ms = now_ms
        owed = self.pool.amount * (_MINUTE_MS + now_ms - self._alone_since_ms) // (_MINUTE_MS * ALONE)
        back = max(0, amount - self.available)
        if self._returns - back < -owed:
            return False
        self._returns -= back
        self.available += back - amount
        self.in_flight += amount
        self._use += amount
        return True

    def release(self, amount: int) -> None:
        """Undo `reserve` at once: the request was refused by another pool."""
        self.available += amount
        self.in_flight -= amount
        self._use -= amount

    def settle(self, reserved: int, used: int) -> None:
        """Replace a reservation by what was used, more or less; of a gauge nothing is used up.

        What a bucket gets back goes to the pool with the next take, for that has refilled meanwhile.
        """
        self.in_flight -= reserved
        if self._is_bucket:
            self._returns += reserved - used
        else:
            self.available += reserved - used
            self.unwritten += used

    def written(self, amount: int) -> None:
        """`amount` of `unwritten` has been recorded by a committed `spend_script`."""
        self.unwritten -= amount

    def pause_ms(self, need: int, now_ms: int) -> int:
        """0 if the pool may be asked for `need`, or for how long its last refusal stands for that."""
        if now_ms >= self._refused_until_ms or need - self._at_hand(now_ms) <= self._left:
            return 0
        return self._refused_until_ms - now_ms

    def short(self, now_ms: int) -> Short:
        """The last refusal, as it stands now: what to tell those whom it stops without asking again."""
        return Short(self.pool.id, self._left, max(1, self._retry_at_ms - now_ms), self._resets_at_ms)

    def wanted(self, least: int, need: int, now_ms: int) -> tuple[int, int, int]:
        """What to take (`Take.least`, `need`, `most`) so that `least`, or all of `need`, can be reserved; what is
        beyond, for the next second, lets the following requests be admitted without asking.
        """
        at_hand = self._at_hand(now_ms)
        if need <= at_hand:
            return 0, 0, 0
        missing = need - at_hand
        return max(0, least - at_hand), missing, missing + self._recent(now_ms)

    def due(self, now_ms: int) -> bool:
        """Whether the pool should hear of something with the next write, even if no request waits."""
        returning = self._returns != 0 and now_ms >= self._return_at_ms
        return returning or self.available < 0 or self.excess(now_ms) > 0

    def excess(self, now_ms: int) -> int:
        """What this process holds beyond its use and its share, to be given back."""
        if now_ms >= self._until_ms:
            return max(0, self.available)
        keep = min(self._recent(now_ms), self._left // SHARE)
        return self.available - keep if self.available > 2 * keep else 0

    def idle(self, now_ms: int) -> bool:
        """Whether nothing is under way or unrecorded, and nothing was used lately: give the lease back, forget this."""
        return not (self.in_flight or self.unwritten or self._returns or self._recent(now_ms) or self.available < 0)

    def take(self, least: int, need: int, now_ms: int, expires_at_ms: int, *, keep: bool = False) -> Take:
        """The take to run next, for `need` or, with 0, only to settle accounts; answer it with `accept`, `refuse` or
        `failed`. With `keep` nothing that is at hand is given back: the database may be away.
        """
        wish = self.wanted(least, need, now_ms)
        back = 0 if keep or (wish[1] > 0 and now_ms < self._until_ms) else self.excess(now_ms)
        self._sent = max(0, -self.available) - back - self._returns
        self.available -= back
        self._returns = 0
        self._return_at_ms = now_ms + RETURN_MS
        return Take(
            pool=self.pool,
            holder=self._holder,
            least=wish[0],
            need=wish[1],
            most=wish[2],
            expires_at_ms=expires_at_ms,
            correction=self._sent,
            window_start_ms=self._window_start_ms,
            seen=self._seen_at_ms is not None,
        )

    def accept(self, taken: Taken, now_ms: int) -> "LeaseBook":
        """The book to go on with: this one, or a new one if another window has begun; then this one's requests under
        way still settle here, and it needs nothing more: what is left of its lease ends with it.
        """
        if self._window_start_ms is not None and taken.window_start_ms != self._window_start_ms:
            new = LeaseBook(self.pool, self._holder)
            new._use, new._use_before, new._slot_end_ms = self._use, self._use_before, self._slot_end_ms
            return new.accept(taken, now_ms)
        self._alone_since_ms = None
        self._counted()
        self._granted += taken.amount
        self.available += taken.amount
        self._saw(taken.left_after, taken.resets_at_ms, now_ms)
        if self._is_bucket:
            self._until_ms = now_ms + HELD_MS
        else:
            self._hold(taken, now_ms)
        return self

    def refuse(self, short: Short, now_ms: int) -> None:
        """The pool has less than was asked for: it is not asked for as much again until it may have it."""
        self._alone_since_ms = None
        self._counted()
        self._saw(short.left, short.resets_at_ms, now_ms)
        self._retry_at_ms = now_ms + short.retry_after_ms
        self._refused_until_ms = now_ms + min(short.retry_after_ms, REMEMBERED_MS)

    def failed(self) -> None:
        """The take did not happen: what it was to give back is at hand again."""
        if self._is_bucket:
            self.available += max(0, -self._sent)
            self._returns -= max(0, self._sent)
        elif self._sent < 0:
            self.available -= self._sent
        self._sent = 0

    def renewed(self, expires_at_ms: int) -> None:
        """The lease ends at `expires_at_ms` now."""
        self._until_ms = self._end(expires_at_ms)

    def lost(self) -> None:
        """The lease was reclaimed: nothing may be reserved until the pool has been asked."""
        self._until_ms = 0

    def standing(self, now_ms: int) -> Standing:
        """What the pool is known to have left, refilled since it was seen, with what is at hand here."""
        seen_at_ms = now_ms if self._seen_at_ms is None else self._seen_at_ms
        gained = max(0, now_ms - seen_at_ms) * self.pool.amount // 60_000 if self._is_bucket else 0
        remaining = min(self.pool.amount, self._left + gained + self._at_hand(now_ms))
        reset_ms = None if self._resets_at_ms is None else max(0, self._resets_at_ms - now_ms)
        return Standing(self.pool.quantity, self.pool.window, self.pool.amount, max(0, remaining), reset_ms)

    def _at_hand(self, now_ms: int) -> int:
        return max(0, self.available) if now_ms < self._until_ms else 0

    def _recent(self, now_ms: int) -> int:
        if now_ms >= self._slot_end_ms:
            self._roll(now_ms)
        return max(0, self._use, self._use_before)

    def _roll(self, now_ms: int) -> None:
        self._use_before = self._use if now_ms < self._slot_end_ms + _SLOT_MS else 0
        self._use = 0
        self._slot_end_ms = now_ms - now_ms % _SLOT_MS + _SLOT_MS

    def _counted(self) -> None:
        if not self._is_bucket:
            self._granted += self._sent
            self.available += max(0, self._sent)
        self._sent = 0

    def _saw(self, left: int, resets_at_ms: int | None, now_ms: int) -> None:
        self._left, self._resets_at_ms, self._seen_at_ms = left, resets_at_ms, now_ms

    def _hold(self, taken: Taken, now_ms: int) -> None:
        if taken.lease_amount != self._granted:
            # It had been reclaimed, and this is a new one: all that was at hand is gone, what is under way counts anew.
            self._granted = taken.lease_amount
            self.available = taken.lease_amount - self.in_flight - self.unwritten
        self.lease_id, self._window_start_ms = taken.lease_id, taken.window_start_ms
        self._until_ms = self._end(taken.expires_at_ms)

    def _end(self, expires_at_ms: int) -> int:
        until_ms = expires_at_ms - SKEW_MS
        return until_ms if self.pool.law == "gauge" else min(until_ms, self._resets_at_ms or until_ms)
