"""Writes what each request used, and that it happened, in one transaction shared by all requests that wait for it.

Group commit: while one commit is under way the next requests gather; then they share one, because a disk needs
milliseconds for a commit however much is in it.

A request leaves the queue when it is written, not before: its caller waits about a second of an outage and is told, the
writer tries again until the database is back. What is left at the end of a stop goes into a file, and from there into
the database of the next start.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from galerne.gateway.unsettled import Settled, UnsettledFile, load_unsettled, save_unsettled
from galerne.journal import append
from galerne.kernel import Clock, Database, Unavailable, get_logger, invariant
from galerne.metering import record

__all__ = ["Settled", "Settlements", "Waits", "settlement_writer"]

_LARGEST_BATCH = 512
_PAUSE_WHEN_CLOSING_S = 0.2
_CANCEL_S = 2.0
_STOP_S = 10.0
_LONGEST_WRITE_S = 15.0  # a database may hang instead of failing
_MOST_REFUSALS = 2
_OUTAGES = (OperationalError, PoolTimeout, OSError, TimeoutError)
# PostgreSQL's classes of errors that what was written can be at fault for: data, integrity, limits (appendix A).
_BLAMED_STATES = ("22", "23", "54")

Write = Callable[[Sequence[Settled]], Awaitable[None]]
Observe = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds: the pauses between tries, the last of them for ever; how long who settles waits while writing fails, and
    while it is merely slow.
    """

    pauses_s: Sequence[float] = (0.05, 0.2, 0.8, 2.0, 5.0)
    patience_s: float = 1.0
    longest_s: float = 5.0


_WAITS = Waits()


@dataclass(slots=True, eq=False)
class _Waiting:
    one: Settled
    committed: asyncio.Future[None]
    file: UnsettledFile | None = None
    refusals: int = 0


def settlement_writer(database: Database) -> Write:
    """A function that writes a batch in one transaction: all of it or nothing, and each of it once."""

    async def write(batch: Sequence[Settled]) -> None:
        entries = {one.event.id: one.entry for one in batch}  # two copies of a file may say the same twice
        async with database.transaction() as session:
            new = await record(session, [one.event for one in batch])
            # A commit may have gone through though its confirmation was lost: then a second try finds all of it there.
            await append(session, [entry for request_id, entry in entries.items() if request_id in new])

    return write


class Settlements:
    """The queue of requests that wait for their commit; bounded: admission asks whether it is `full` or `failing`.

    `folder` is where what a stop leaves unwritten is kept.
    """

    def __init__(
        self,
        write: Write,
        clock: Clock,
        folder: Path,
        *,
        observe: Observe = lambda size, seconds: None,
        capacity: int = 10_000,
        waits: Waits = _WAITS,
    ) -> None:
        self._write = write
        self._clock = clock
        self._folder = folder
        self._observe = observe
        self._capacity = capacity
        self._waits = waits
        self._queue: deque[_Waiting] = deque()
        self._failures = 0
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._log = get_logger("gateway")

    @property
    def full(self) -> bool:
        """Whether so many requests wait for a commit that no new one should be admitted."""
        return len(self._queue) >= self._capacity

    @property
    def failing(self) -> bool:
        """Whether the last write failed, and its quick second try too: what is admitted now could not be recorded."""
        return self._failures > 1

    def start(self) -> None:
        """Begin to write, first of all what an earlier run left in the folder."""
        invariant(self._task is None, "settlements are started once")
        self._closing = False
        self._hurry.clear()
        loop = asyncio.get_running_loop()
        self._queue.extend(_Waiting(one, loop.create_future(), file) for one, file in load_unsettled(self._folder))
        self._task = asyncio.create_task(self._run(), name="settlement")

    async def stop(self, settle_s: float = _STOP_S) -> None:
        """Write everything that waits, then end; what cannot be written within `settle_s` goes into a file."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._closing = True
        self._wake.set()
        self._hurry.set()
        await asyncio.wait((task,), timeout=settle_s)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCEL_S)
        left, self._queue, self._failures = self._queue, deque[_Waiting](), 0
        for waiting in left:
            _tell(waiting, _unrecorded())
        self._keep([waiting.one for waiting in left if waiting.file is None])

    async def settle(self, one: Settled) -> None:
        """Returns when `one` is committed; `Unavailable` (503) when that takes too long: it is still written later."""
        invariant(self._task is not None, "settlements are started before anything settles")
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(one, committed))
        self._wake.set()
        await asyncio.wait((committed,), timeout=self._waits.patience_s)
        if not committed.done() and not self._failures:
            await asyncio.wait((committed,), timeout=self._waits.longest_s - self._waits.patience_s)
        if not committed.done():
            self._log.error("settlement_late", request_id=one.event.id)
            raise _unrecorded()
        committed.result()

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            elif not await self._commit(list(islice(self._queue, _LARGEST_BATCH))):
                await self._pause()

    async def _pause(self) -> None:
        pauses_s = self._waits.pauses_s
        pause_s = pauses_s[min(max(self._failures, 1), len(pauses_s)) - 1]
        if self._closing:
            await asyncio.sleep(min(pause_s, _PAUSE_WHEN_CLOSING_S))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()

    async def _commit(self, batch: list[_Waiting]) -> bool:
        """Write `batch`, the head of the queue; whether that is done with, or must be tried again after a pause."""
        began_s = self._clock.monotonic()
        failure = await self._try([waiting.one for waiting in batch])
        if failure is None:
            self._written(batch)
            self._observe(len(batch), self._clock.monotonic() - began_s)
            return True
        if _blames_request(failure):
            if len(batch) > 1:
                # One request that cannot be written must not hold up those that share its commit.
                return await self._commit_each(batch)
            # An empty write shows whose fault it is: the database's, or that of this one request.
            if await self._try([]) is None:
                return self._refused(batch[0], failure)
        self._failures += 1
        self._log.error("settlement_failing", waiting=len(self._queue), error=type(failure).__name__)
        return False

    async def _commit_each(self, batch: list[_Waiting]) -> bool:
        for waiting in batch:
            if not await self._commit([waiting]):
                return False
        return True

    def _written(self, batch: list[_Waiting]) -> None:
        if self._failures:
            self._log.warning("settlement_recovered", failures=self._failures)
        self._failures = 0
        for waiting in batch:
            self._queue.popleft()
            if waiting.file is not None:
                waiting.file.settled()
            if not waiting.committed.done():
                waiting.committed.set_result(None)

    def _refused(self, waiting: _Waiting, failure: Exception) -> bool:
        """Try a request that the working database refuses once more, then set it aside: it must not block the rest."""
        self._failures = 0
        waiting.refusals += 1
        if waiting.refusals < _MOST_REFUSALS:
            return False
        self._queue.popleft()
        self._log.error("settlement_refused", request_id=waiting.one.event.id, error=type(failure).__name__)
        _tell(waiting, _unrecorded())
        if waiting.file is None:
            self._keep([waiting.one])
        return True

    def _keep(self, ones: list[Settled]) -> None:
        if not ones:
            return
        try:
            path = save_unsettled(self._folder, ones, self._clock.now())
        except OSError as error:
            for one in ones:
                self._log.critical("settlement_lost", request_id=one.event.id, error=type(error).__name__)
            return
        self._log.critical("settlement_unwritten", requests=len(ones), file=str(path))

    async def _try(self, batch: Sequence[Settled]) -> Exception | None:
        try:
            async with asyncio.timeout(_LONGEST_WRITE_S):
                await self._write(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it and the writer live
            return error
        return None


def _blames_request(failure: Exception) -> bool:
    """Whether one request may be at fault, not the database, which may also be full or have become read-only."""
    state = getattr(getattr(failure, "orig", failure), "sqlstate", None)
    if isinstance(state, str):
        return state[:2] in _BLAMED_STATES
    return not isinstance(failure, _OUTAGES)


def _unrecorded() -> Unavailable:
    return Unavailable("The use of this request could not be recorded.", code="settlement_failed", retry_after_s=1)


def _tell(waiting: _Waiting, error: Unavailable) -> None:
    if not waiting.committed.done():
        waiting.committed.set_exception(error)
        waiting.committed.exception()  # retrieved here too: its waiter may have been cancelled
