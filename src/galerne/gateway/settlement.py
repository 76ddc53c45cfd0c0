"""Group commit: writes what requests used and owe, and that they happened, for all requests that wait for it at once.

While one commit is under way the next requests gather; then they share one, because a disk needs milliseconds for a
commit however much is in it. What reservations ask of the database goes into the same commits.

While the database is away, or hangs, requests are written to a file in the data folder instead, as durably, and from
there into the database once it is back: nobody is told that a request failed that did not. What is left at the end of a
stop goes the same way, into the database of the next start.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from galerne.gateway.commit import Commit, Errand
from galerne.gateway.progress import Progress
from galerne.gateway.reservations import Answers, Orders
from galerne.gateway.settled import Settled
from galerne.gateway.unsettled import UnsettledFile, load_unsettled, save_unsettled
from galerne.kernel import Clock, Conflict, Unavailable, blames_content, get_logger, invariant

__all__ = ["Desk", "Settled", "Settlements", "Waits"]

_LARGEST_BATCH = 128  # statements run on the event loop: more would be felt between the chunks of streams
_PAUSE_WHEN_CLOSING_S = 0.2
_CANCEL_S = 2.0
_STOP_S = 10.0
_LONGEST_WRITE_S = 15.0  # a database may hang instead of failing
_MOST_REFUSALS = 2
_SPILL_PAUSE_S = 0.05

Write = Callable[[Commit], Awaitable[Answers]]


class Desk(Protocol):
    """Whoever has something for the next commit besides requests that ended; `GatewayDesk` is one."""

    def set_outage(self, outage: bool) -> None:
        """The database is away, or is back."""
        ...

    def progress(self) -> Sequence[Progress]:
        """What long streams have delivered since it was last written."""
        ...

    def committed(self, size: int, seconds: float) -> None:
        """A commit of so many requests took so long."""
        ...

    def orders(self) -> Orders | None:
        """What the next commit shall do."""
        ...

    def done(self, orders: Orders, answers: Answers) -> None:
        """It did."""
        ...

    def failed(self, orders: Orders) -> None:
        """It did not."""
        ...

    def end(self) -> Orders:
        """What the last commit shall do."""
        ...


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds: the pauses between tries, the last of them for ever; how long a request waits for a slow database until
    it is written to the file; how long new requests are admitted while the database is away.
    """

    pauses_s: Sequence[float] = (0.05, 0.2, 0.8, 2.0, 5.0)
    patience_s: float = 1.0
    outage_s: float = 60.0


class _Waiting(Struct, eq=False):
    one: Settled
    committed: asyncio.Future[Settled]
    written: Callable[[], None] | None = None
    file: UnsettledFile | None = None
    stored: bool = False
    refusals: int = 0


class Settlements:
    """The queue of requests that wait for their commit; bounded: admission asks whether it is `full` or `refusing`.

    `folder` is where what the database cannot take is kept meanwhile.
    """

    def __init__(
        self,
        write: Write,
        desk: Desk,
        clock: Clock,
        folder: Path,
        *,
        capacity: int = 10_000,
        waits: Waits | None = None,
    ) -> None:
        self._write = write
        self._desk = desk
        self._clock = clock
        self._folder = folder
        self._capacity = capacity
        self._waits = waits or Waits()
        self._queue: deque[_Waiting] = deque()
        self._failures = 0
        self._failing_since_s = 0.0
        self._writing_since_s: float | None = None
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._spill_due = asyncio.Event()
        self._errands: deque[tuple[Errand, asyncio.Future[Any]]] = deque()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._closing = False
        self._log = get_logger("gateway")

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether so many requests wait for a commit that no new one should be admitted."""
        return len(self._queue) >= self._capacity

    @property
    def failing(self) -> bool:
        """Whether the last write failed, and its quick second try too."""
        return self._failures > 1

    @property
    def refusing(self) -> bool:
        """Whether the database has been away for so long that no new request should be admitted."""
        return self.failing and self._clock.monotonic() - self._failing_since_s >= self._waits.outage_s

    def start(self, left: Iterable[tuple[Settled, UnsettledFile]] = ()) -> None:
        """Begin to write, first of all what an earlier run left in the folder, and `left`, which says it less well."""
        invariant(not self._tasks, "settlements are started once")
        self._closing = False
        self._hurry.clear()
        loop = asyncio.get_running_loop()
        kept = load_unsettled(self._folder)
        self._queue.extend(_Waiting(one, loop.create_future(), None, file) for one, file in kept)
        exact = {one.event.id for one, _ in kept}
        for one, file in left:
            if one.event.id in exact:
                file.settled()  # it ended before its process died, and how is what counts
            else:
                self._queue.append(_Waiting(one, loop.create_future(), None, file))
        self._tasks = (
            asyncio.create_task(self._run(), name="settlement"),
            asyncio.create_task(self._run_spill(), name="spill"),
        )

    def wake(self) -> None:
        """Have a commit run soon: the desk has orders."""
        self._wake.set()

    async def run(self, errand: Errand) -> Any:
        """What a script returns, run in a transaction of its own between two commits; raises what the database does."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._errands.append((errand, done))
        self._wake.set()
        return await done

    async def stop(self, settle_s: float = _STOP_S) -> None:
        """Write everything that waits, then end; what cannot be written within `settle_s` stays in the file."""
        if not self._tasks:
            return
        (writing, spilling), self._tasks = self._tasks, ()
        self._closing = True
        self._wake.set()
        self._hurry.set()
        await asyncio.wait((writing,), timeout=settle_s)
        if not writing.done():
            writing.cancel()
        self._spill_due.set()
        await asyncio.wait((writing, spilling), timeout=_CANCEL_S)
        await self._spill_waiting()
        left, self._queue, self._failures = self._queue, deque[_Waiting](), 0
        for waiting in left:
            _tell(waiting, _unrecorded())
        if left:
            self._log.critical("settlement_unwritten", requests=len(left), folder=str(self._folder))

    async def settle(self, one: Settled, written: Callable[[], None] | None = None) -> Settled:
        """What is durable of `one`, in the database or in the file; `written` is called once the former is so.

        That is `one`, or the second best of it that the ledger took. Raises `Unavailable` (503) when it is in neither.
        """
        return await self.begin(one, written)

    def begin(self, one: Settled, written: Callable[[], None] | None = None) -> asyncio.Future[Settled]:
        """The same as a future: its commit is under way once the event loop has been round."""
        invariant(bool(self._tasks), "settlements are started before anything settles")
        committed: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(one, committed, written))
        self._wake.set()
        if self.failing:
            self._spill_due.set()
        return committed

    async def _run(self) -> None:
        while self._queue or not self._closing:
            if not self._queue and not self._wake.is_set():
                await self._wake.wait()
            self._wake.clear()
            batch = list(islice(self._queue, _LARGEST_BATCH))
            orders, progress = self._wishes()
            if (batch or orders or progress) and not await self._commit(batch, orders, progress):
                await self._pause()
            # Not before what an earlier run left is written: an errand may recover the same, known less well.
            if self._errands and not any(waiting.file is not None for waiting in self._queue):
                await self._run_errands()
        await self._try(Commit(orders=self._desk.end()))

    def _wishes(self) -> tuple[Orders | None, Sequence[Progress]]:
        try:
            return self._desk.orders(), self._desk.progress()
        except Exception as error:  # noqa: BLE001 - one wish that cannot be put must not end the settling of all others
            self._log.error("orders_defect", error=type(error).__name__)
            return None, ()

    async def _run_errands(self) -> None:
        while self._errands:
            errand, done = self._errands.popleft()
            answers = await self._try(Commit(errand=errand))
            if done.done():
                continue
            if isinstance(answers, Exception):
                done.set_exception(answers)
            else:
                done.set_result(answers.errand)

    async def _pause(self) -> None:
        pauses_s = self._waits.pauses_s
        pause_s = pauses_s[min(max(self._failures, 1), len(pauses_s)) - 1]
        if self._closing:
            await asyncio.sleep(min(pause_s, _PAUSE_WHEN_CLOSING_S))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()

    async def _commit(self, batch: list[_Waiting], orders: Orders | None, progress: Sequence[Progress]) -> bool:
        """Write `batch`, the head of the queue; whether that is done with, or must be tried again after a pause."""
        began_s = self._clock.monotonic()
        answers = await self._try(Commit([waiting.one for waiting in batch], orders, progress))
        if isinstance(answers, Answers):
            self._written(batch)
            if orders is not None:
                self._desk.done(orders, answers)
            if batch:
                self._desk.committed(len(batch), self._clock.monotonic() - began_s)
            return True
        if orders is not None:
            self._desk.failed(orders)
        if blames_content(answers):
            if len(batch) > 1 or (batch and (orders is not None or progress)):
                # One request that cannot be written must not hold up those that share its commit, nor take their blame.
                return await self._commit_each(batch)
            # An empty write shows whose fault it is: the database's, or that of this one request.
            if isinstance(await self._try(Commit()), Answers):
                return self._refused(batch, answers)
        self._fail(answers)
        return False

    def _fail(self, failure: Exception) -> None:
        if not self._failures:
            self._failing_since_s = self._clock.monotonic()
        self._failures += 1
        self._desk.set_outage(self.failing)
        self._log.error("settlement_failing", waiting=len(self._queue), error=type(failure).__name__)
        if self.failing:
            self._spill_due.set()

    async def _commit_each(self, batch: list[_Waiting]) -> bool:
        for waiting in batch:
            if not await self._commit([waiting], None, ()):
                return False
            if self._queue and self._queue[0] is waiting:
                return True  # to be tried in another way, before those behind it
        return True

    def _written(self, batch: list[_Waiting]) -> None:
        if self._failures:
            self._log.warning("settlement_recovered", failures=self._failures)
        self._failures = 0
        self._desk.set_outage(False)
        for waiting in batch:
            self._queue.popleft()
            waiting.stored = True
            if waiting.file is not None:
                waiting.file.settled()
            if waiting.written is not None:
                waiting.written()
            if not waiting.committed.done():
                waiting.committed.set_result(waiting.one)

    def _refused(self, batch: list[_Waiting], failure: Exception) -> bool:
        """Try a request that the working database refuses once more, then set it aside: it must not block the rest."""
        self._failures = 0
        if not batch:
            self._log.error("orders_refused", error=type(failure).__name__)
            return True
        waiting = batch[0]
        if isinstance(failure, Conflict):
            # Whoever recovered it took us for dead; what was recorded first stands, and is not counted again.
            self._log.error("settlement_superseded", request_id=waiting.one.event.id)
            self._written(batch)
            return True
        waiting.refusals += 1
        if waiting.refusals < _MOST_REFUSALS:
            return False
        second_best = waiting.one.second_best()
        if second_best is not None:
            self._log.error("settlement_without_hold", request_id=waiting.one.event.id, error=type(failure).__name__)
            waiting.one, waiting.refusals = second_best, _MOST_REFUSALS - 1
            return True
        self._queue.popleft()
        self._log.critical("settlement_refused", request_id=waiting.one.event.id, error=type(failure).__name__)
        if waiting.file is None:
            with suppress(OSError):
                save_unsettled(self._folder, [waiting.one], self._clock.now())
        if waiting.written is not None:
            waiting.written()  # nothing will come of it here: its hold and leases must not wait for that
        _tell(waiting, _unrecorded())
        return True

    async def _run_spill(self) -> None:
        # Looked at now and then, for a timer for each request would cost a busy gateway thousands of them a second.
        # It ends by itself, for a thread that writes a file could not be stopped in the middle.
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._waits.patience_s):
                    await self._spill_due.wait()
            stuck = self._writing_since_s is not None and self._waited_s() >= self._waits.patience_s
            if not (self._spill_due.is_set() or stuck):
                continue
            self._spill_due.clear()
            await self._spill_waiting()
            await asyncio.sleep(_SPILL_PAUSE_S)  # so that those who come meanwhile share a file

    def _waited_s(self) -> float:
        return self._clock.monotonic() - (self._writing_since_s or self._clock.monotonic())

    async def _spill_waiting(self) -> None:
        waiting = [each for each in self._queue if each.file is None]
        if not waiting:
            return
        try:
            ones = [each.one for each in waiting]
            file = await asyncio.to_thread(save_unsettled, self._folder, ones, self._clock.now())
        except OSError as error:
            for each in waiting:
                self._log.critical("settlement_lost", request_id=each.one.event.id, error=type(error).__name__)
                _tell(each, _unrecorded())
            return
        for each in waiting:
            if each.stored:
                file.settled()  # the database took it meanwhile
                continue
            each.file = file
            if not each.committed.done():
                each.committed.set_result(each.one)

    async def _try(self, commit: Commit) -> Answers | Exception:
        self._writing_since_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(_LONGEST_WRITE_S):
                return await self._write(commit)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it and the writer live
            return error
        finally:
            self._writing_since_s = None


def _unrecorded() -> Unavailable:
    return Unavailable("The use of this request could not be recorded.", code="settlement_failed", retry_after_s=1)


def _tell(waiting: _Waiting, error: Unavailable) -> None:
    if not waiting.committed.done():
        waiting.committed.set_exception(error)
        waiting.committed.exception()  # retrieved here too: its waiter may have been cancelled
