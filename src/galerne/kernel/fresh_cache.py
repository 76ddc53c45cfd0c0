"""A bounded cache, never staler than stated, that loads a key once however many ask and remembers refusals briefly."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from galerne.kernel.clock import Clock
from galerne.kernel.errors import GalerneError, Unavailable

__all__ = ["MOST_LOADING", "MOST_REFUSALS", "FreshCache"]

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")
V = TypeVar("V")

MOST_REFUSALS = 2_000
"""How many refusals one cache remembers at most: 0.5 kB each."""

MOST_LOADING = 512
"""How many loads of one cache wait at once: 2 kB each. Whoever comes beyond would not be served in time anyhow."""

_AT_ONCE = 8  # of them are at the database, with a session each of 20 kB, however many wait

_OUTAGE_PAUSE_S = 1.0
_PATIENCE_S = 1.0  # where there is an older value that may be gone on with
_GIVEN_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V | GalerneError
    read_at_s: float
    first_s: float


class FreshCache(Generic[K, A, V]):
    """Values by key, loaded with `load(argument)`; trusted for `staleness_s` from the moment before they were read.

    Where `load` cannot tell (an error of 500 or more) a value is trusted for `outage_s` instead, and asked for again at
    most each second. Refusals (`GalerneError`) are remembered for `refusal_s`, in a cache of their own, so that a flood
    of wrong keys cannot push out the right ones; with 0 they are not. Any other failure of `load` is not remembered.

    It holds at most `capacity` values, and as many refusals up to `MOST_REFUSALS`: those that were read last,
    and of them only what may still be trusted, for each that comes drops those that are too old.
    """

    def __init__(
        self,
        load: Callable[[A], Awaitable[V]],
        clock: Clock,
        *,
        staleness_s: float,
        refusal_s: float,
        capacity: int,
        outage_s: float = 0.0,
    ) -> None:
        self._load = load
        self._clock = clock
        self._staleness_s = staleness_s
        self._refusal_s = refusal_s
        self._capacity = capacity
        self._most_refusals = min(capacity, MOST_REFUSALS)
        self._outage_s = outage_s
        self._trusted_s = max(staleness_s, outage_s)
        self._values: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._refusals: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._loading: dict[K, asyncio.Task[V]] = {}
        self._running = 0
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._hanging = False

    def lasts_s(self, value: V) -> float:
        """How long a value is right at most, in seconds from when it was read; a subclass may know."""
        return self._staleness_s

    async def get(self, key: K, argument: A) -> V:
        """The value of `key`; raises what `load` raises."""
        now_s = self._clock.monotonic()
        entry = self._values.get(key)
        if (
            entry is not None
            and now_s - entry.read_at_s < self._staleness_s
            and not isinstance(entry.value, GalerneError)
        ):
            return entry.value
        refusal = self._refusals.get(key)
        if (
            refusal is not None
            and now_s - refusal.read_at_s < self._refusal_s
            and isinstance(refusal.value, GalerneError)
        ):
            raise refusal.value.again()
        task = self._loading.get(key)
        if task is None:
            if self._running >= MOST_LOADING:
                return self._kept(key, now_s, _away())
            self._running += 1
            task = self._loading[key] = asyncio.create_task(self._read(key, argument))
            task.add_done_callback(lambda done: self._loaded(key, done))
        # Waited for only: one caller that hangs up must not fail the others that wait for the same key.
        if not task.done() and not (await asyncio.wait((task,), timeout=self._patience_s(key, now_s)))[0]:
            return self._instead(key, task)
        error = task.exception()
        if isinstance(error, GalerneError):
            raise error.again()
        return task.result()

    def _patience_s(self, key: K, now_s: float) -> float:
        entry = self._values.get(key)
        if entry is None or now_s - entry.first_s >= self._outage_s:
            return _GIVEN_UP_S
        return 0.0 if self._hanging else _PATIENCE_S

    def __len__(self) -> int:
        return len(self._values) + len(self._refusals)

    async def _read(self, key: K, argument: A) -> V:
        read_at_s = self._clock.monotonic()
        try:
            value = await self._load_in_turn(argument)
        except GalerneError as error:
            if error.status < 500:
                self._values.pop(key, None)
                if self._refusal_s > 0:
                    refusal: _Entry[V] = _Entry(error.again(), read_at_s, read_at_s)
                    _store(self._refusals, key, refusal, self._most_refusals, read_at_s - self._refusal_s)
                raise
            return self._kept(key, read_at_s, error)
        self._hanging = False
        self._refusals.pop(key, None)
        sooner_s = max(0.0, self._staleness_s - self.lasts_s(value))
        entry: _Entry[V] = _Entry(value, read_at_s - sooner_s, read_at_s)
        _store(self._values, key, entry, self._capacity, read_at_s - self._trusted_s)
        return value

    async def _load_in_turn(self, argument: A) -> V:
        async with self._turn:
            load = asyncio.ensure_future(self._load(argument))
            if not (await asyncio.wait((load,), timeout=_GIVEN_UP_S))[0]:
                # Not waited for any longer, for what hangs may hang in ending too, and would keep its turn for ever.
                load.add_done_callback(_look_at)
                load.cancel()
                raise _away()
            try:
                return load.result()
            finally:
                del load  # a refusal holds this frame, which would hold the refusal

    def _instead(self, key: K, hanging: asyncio.Task[V]) -> V:
        self._hanging = True
        # What hangs may hang for ever, though the database is back: after a while somebody asks again.
        if self._loading.get(key) is hanging:
            asyncio.get_running_loop().call_later(_GIVEN_UP_S, self._give_up, key, hanging)
        return self._kept(key, self._clock.monotonic(), _away())

    def _give_up(self, key: K, hanging: asyncio.Task[V]) -> None:
        if self._loading.get(key) is hanging:
            del self._loading[key]

    def _kept(self, key: K, now_s: float, error: GalerneError) -> V:
        """The value there was, for another second, if it was read recently enough; else raises `error`."""
        entry = self._values.get(key)
        if entry is None or isinstance(entry.value, GalerneError) or now_s - entry.first_s >= self._outage_s:
            self._values.pop(key, None)
            raise error.again()
        again_s = now_s - self._staleness_s + min(self._staleness_s, _OUTAGE_PAUSE_S)
        self._values[key] = _Entry(entry.value, again_s, entry.first_s)
        return entry.value

    def _loaded(self, key: K, task: asyncio.Task[V]) -> None:
        self._running -= 1
        if self._loading.get(key) is task:
            del self._loading[key]
        _look_at(task)  # for every caller may have hung up meanwhile


def _look_at(done: asyncio.Future[V]) -> None:
    # An error that nobody has looked at would be logged.
    if not done.cancelled():
        done.exception()


def _away() -> Unavailable:
    return Unavailable("The database does not answer.", code="database_unavailable", retry_after_s=1)


def _store(entries: OrderedDict[K, _Entry[V]], key: K, entry: _Entry[V], capacity: int, since_s: float) -> None:
    entries[key] = entry
    entries.move_to_end(key)
    while len(entries) > capacity or next(iter(entries.values())).first_s < since_s:
        entries.popitem(last=False)
