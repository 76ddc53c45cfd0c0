"""A bounded cache, never staler than stated, that loads a key once however many ask and remembers refusals briefly."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from galerne.kernel import Clock, GalerneError, Unavailable

__all__ = ["FreshCache"]

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")
V = TypeVar("V")

_OUTAGE_PAUSE_S = 1.0
_PATIENCE_S = 1.0
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
    of wrong keys cannot push out the right ones. Any other failure of `load` is not remembered.
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
        self._outage_s = outage_s
        self._values: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._refusals: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._loading: dict[K, asyncio.Task[V]] = {}
        self._hanging = False

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
            raise _again(refusal.value)
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._read(key, argument))
            task.add_done_callback(lambda done: self._loaded(key, done))
        # Waited for only: one caller that hangs up must not fail the others that wait for the same key.
        patience_s = 0.0 if self._hanging and key in self._values else _PATIENCE_S
        if not task.done() and not (await asyncio.wait((task,), timeout=patience_s))[0]:
            return self._instead(key, task)
        try:
            return task.result()
        except GalerneError as error:
            raise _again(error) from None

    def __len__(self) -> int:
        return len(self._values) + len(self._refusals)

    async def _read(self, key: K, argument: A) -> V:
        read_at_s = self._clock.monotonic()
        try:
            value = await self._load(argument)
        except GalerneError as error:
            if error.status < 500:
                self._values.pop(key, None)
                self._store(self._refusals, key, _Entry(_again(error), read_at_s, read_at_s))
                raise
            return self._kept(key, read_at_s, error)
        self._hanging = False
        self._refusals.pop(key, None)
        self._store(self._values, key, _Entry(value, read_at_s, read_at_s))
        return value

    def _instead(self, key: K, hanging: asyncio.Task[V]) -> V:
        self._hanging = True
        # What hangs may hang for ever, though the database is back: after a while somebody asks again.
        if self._loading.get(key) is hanging:
            asyncio.get_running_loop().call_later(_GIVEN_UP_S, self._give_up, key, hanging)
        away = Unavailable("The database does not answer.", code="database_unavailable", retry_after_s=1)
        return self._kept(key, self._clock.monotonic(), away)

    def _give_up(self, key: K, hanging: asyncio.Task[V]) -> None:
        if self._loading.get(key) is hanging:
            del self._loading[key]

    def _kept(self, key: K, now_s: float, error: GalerneError) -> V:
        """The value there was, for another second, if it was read recently enough; else raises `error`."""
        entry = self._values.get(key)
        if entry is None or isinstance(entry.value, GalerneError) or now_s - entry.first_s >= self._outage_s:
            self._values.pop(key, None)
            raise error
        again_s = now_s - self._staleness_s + min(self._staleness_s, _OUTAGE_PAUSE_S)
        self._values[key] = _Entry(entry.value, again_s, entry.first_s)
        return entry.value

    def _loaded(self, key: K, task: asyncio.Task[V]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled():
            task.exception()  # retrieved, for every caller may have hung up meanwhile

    def _store(self, entries: OrderedDict[K, _Entry[V]], key: K, entry: _Entry[V]) -> None:
        entries[key] = entry
        entries.move_to_end(key)
        while len(entries) > self._capacity:
            entries.popitem(last=False)


def _again(error: GalerneError) -> GalerneError:
    # A new one each time: raising one exception object for many callers would chain their tracebacks together.
    return type(error)(error.message, code=error.code, param=error.param, retry_after_s=error.retry_after_s)
