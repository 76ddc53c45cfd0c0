"""What is measured of a server that stands before an upstream, and how; who is measured does not matter here.

Each load goes first to the upstream itself and then through the server, so that every figure has its own beside it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from bench import machine
from bench.load import Answer, Target, abandon, closed_loop, open_loop, percentile, streams
from bench.processes import Subject
from bench.upstream import CHUNKS, SHORT, stream_model

GAP_MS = 20
RATE_PER_S = 50
ABANDONED = 40
ABANDONED_AFTER_S = 0.4
MODELS = (SHORT, stream_model(0), stream_model(GAP_MS))
_STREAM_S = GAP_MS * CHUNKS / 1000
_HELD_DELAY_MS = 100
_PATIENCE_S = 60
_ROUNDS = 3
_WARM_UP_S = 3  # Node compiles what is used often

Figure = TypeVar("Figure")


@dataclass(frozen=True)
class Plan:
    """How much is measured; more streams than it could not hold only if it `insists`."""

    connections: Sequence[int] = (32, 256)
    streams: Sequence[int] = (25, 100, 200, 400)
    seconds: float = 6.0
    insists: bool = True

    def quick(self) -> "Plan":
        """The same in a sixth of the time: whether it works, not how well."""
        return replace(self, seconds=self.seconds / 6)


@dataclass(frozen=True)
class Beside(Generic[Figure]):
    """A figure of the server and the upstream's own."""

    ours: Figure
    direct: Figure


@dataclass(frozen=True)
class Requests:
    """Callers who ask again once they are answered; how busy their cores were, with all and with ours only."""

    per_s: float
    cpu_ms: float
    core_busy: float
    load_busy: float
    failed: int


@dataclass(frozen=True)
class Streams:
    """Concurrent readers of streams, whose chunks carry the moment at which they were written."""

    delay_p50_ms: float
    delay_p99_ms: float
    cpu_us: float
    chunks_per_s: float
    median_s: float
    failed: int
    lost_chunks: int

    def held(self, delay_ms: float = _HELD_DELAY_MS) -> bool:
        """Whether every stream came whole and in time."""
        in_time = self.delay_p99_ms <= delay_ms and self.median_s <= 1.1 * _STREAM_S
        return not self.failed and not self.lost_chunks and in_time


@dataclass(frozen=True)
class Abandoned:
    """Streams that their readers left: how many the upstream had begun, and how many of those it was told to stop."""

    begun: int = 0
    stopped: int = 0


@dataclass
class Figures:
    """All that was measured of one server; a number of streams that it broke down under has no figures."""

    subject: Subject
    idle_mb: float
    after_mb: float = 0.0
    asked: int = 0
    requests: dict[int, Beside[Requests]] = field(default_factory=dict[int, Beside[Requests]])
    latencies_ms: Beside[list[float]] = field(default_factory=lambda: Beside[list[float]]([], []))
    fdatasync_ms: list[float] = field(default_factory=list[float])
    streams: dict[int, Beside[Streams]] = field(default_factory=dict[int, Beside[Streams]])
    burst: Beside[Streams] | None = None
    abandoned: Abandoned = Abandoned()


@dataclass(frozen=True)
class Laboratory:
    """The upstream, the cores of those who ask, the folder whose disk counts, and our other processes there."""

    mock: Subject
    callers: Collection[int]
    disk: Path
    neighbours: Sequence[int] = ()


async def measure(subject: Subject, laboratory: Laboratory, plan: Plan) -> Figures:
    """All figures of `subject`, one after the other."""
    figures = Figures(subject, machine.pss_mb(subject.pid))
    measuring = _Measuring(figures, laboratory, plan.seconds)
    await measuring.warm_up()
    for connections in plan.connections:
        figures.requests[connections] = await measuring.requests(connections)
    await measuring.latency()
    for count in plan.streams:
        try:
            figures.streams[count] = await measuring.spaced(count)
        except TimeoutError:
            break
        if not (plan.insists or figures.streams[count].ours.held()):
            break
    figures.burst = await measuring.burst()
    figures.abandoned = await measuring.abandoned()
    figures.after_mb = machine.pss_mb(subject.pid)
    return figures


@dataclass(frozen=True)
class _Timed:
    answers: Sequence[Answer]
    wall_s: float
    cpu_s: float
    core_busy: float
    load_busy: float

    def requests(self) -> Requests:
        good = [answer for answer in self.answers if _is_good(answer)]
        return Requests(
            len(good) / self.wall_s,
            self.cpu_s / max(1, len(good)) * 1000,
            self.core_busy,
            self.load_busy,
            len(self.answers) - len(good),
        )

    def streams(self) -> Streams:
        delays = [delay for answer in self.answers for delay in answer.delays_s] or [float("nan")]
        good = [answer for answer in self.answers if _is_good(answer)]
        return Streams(
            percentile(delays, 50) * 1000,
            percentile(delays, 99) * 1000,
            self.cpu_s / len(delays) * 1e6,
            len(delays) / self.wall_s,
            percentile([answer.total_s for answer in self.answers], 50),
            len(self.answers) - len(good),
            sum(CHUNKS - len(answer.delays_s) for answer in good),
        )


@dataclass(frozen=True)
class _Measuring:
    figures: Figures
    laboratory: Laboratory
    seconds: float

    @property
    def pair(self) -> tuple[Subject, Subject]:
        return self.figures.subject, self.laboratory.mock

    async def warm_up(self) -> None:
        answers = await closed_loop(self.figures.subject.target, SHORT, 32, _WARM_UP_S)
        self.figures.asked += len(answers)

    async def requests(self, connections: int) -> Beside[Requests]:
        ours, mock = self.pair
        direct = await self._timed(lambda: closed_loop(mock.target, SHORT, connections, self.seconds / 2), mock)
        through = await self._timed(lambda: closed_loop(ours.target, SHORT, connections, self.seconds), ours)
        return Beside(through.requests(), direct.requests())

    async def latency(self) -> None:
        targets = [each.target for each in self.pair]
        self._reach_the_disk()
        async with asyncio.timeout(_PATIENCE_S):
            answers = await open_loop(targets, [SHORT, SHORT], RATE_PER_S, self.seconds * 2)
        self._reach_the_disk()
        ours, direct = ([each.total_s * 1000 for each in of if _is_good(each)] for of in answers)
        self.figures.asked += len(answers[0])
        self.figures.latencies_ms = Beside(ours, direct)

    async def spaced(self, count: int) -> Beside[Streams]:
        return await self._streams(lambda each: streams(each, stream_model(GAP_MS), count, _ROUNDS, _STREAM_S))

    async def burst(self) -> Beside[Streams]:
        return await self._streams(lambda each: closed_loop(each, stream_model(0), 32, self.seconds / 2, stream=True))

    async def abandoned(self) -> Abandoned:
        ours, mock = self.pair
        before = await _stats(mock)
        await abandon(ours.target, stream_model(GAP_MS), ABANDONED, ABANDONED_AFTER_S)
        await asyncio.sleep(2 * _STREAM_S)
        after = await _stats(mock)
        self.figures.asked += ABANDONED
        return Abandoned(after["streams"] - before["streams"], after["aborted"] - before["aborted"])

    async def _streams(self, load: Callable[[Target], Awaitable[list[Answer]]]) -> Beside[Streams]:
        ours, mock = self.pair
        direct = await self._timed(lambda: load(mock.target), mock)
        through = await self._timed(lambda: load(ours.target), ours)
        return Beside(through.streams(), direct.streams())

    def _reach_the_disk(self) -> None:
        times_s = machine.fdatasync_times_s(self.laboratory.disk, int(self.seconds * 16), 1 / RATE_PER_S)
        self.figures.fdatasync_ms += [each * 1000 for each in times_s]

    async def _timed(self, load: Callable[[], Awaitable[list[Answer]]], of: Subject) -> _Timed:
        before = self._clocks_s(of)
        async with asyncio.timeout(_PATIENCE_S):
            answers = await load()
        wall_s, spent_s, busy_s, all_s, load_s = (
            now - then for now, then in zip(self._clocks_s(of), before, strict=True)
        )
        if of is self.figures.subject:
            self.figures.asked += len(answers)
        return _Timed(answers, wall_s, spent_s, busy_s / max(0.01, all_s), load_s / wall_s)

    def _clocks_s(self, of: Subject) -> tuple[float, float, float, float, float]:
        busy_s, all_s = machine.core_times_s(self.laboratory.callers)
        others = (self.laboratory.mock.pid, *self.laboratory.neighbours)
        load_s = time.process_time() + sum(map(machine.cpu_s, others))
        return time.monotonic(), machine.cpu_s(of.pid), busy_s, all_s, load_s


def _is_good(answer: Answer) -> bool:
    return answer.status == 200 and answer.is_whole


async def _stats(mock: Subject) -> dict[str, int]:
    reader, writer = await asyncio.open_connection(mock.target.host, mock.target.port)
    writer.write(b"GET /stats HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    found = await reader.readuntil(b"}")
    writer.close()
    return json.loads(found)
