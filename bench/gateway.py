"""What the gateway costs beside an upstream alone: requests a second, latency, the delay of each chunk, CPU, memory.

The server runs on one core without engines, with everything on that production has: keys, limits, journal, durable
metering. The mock upstream and the callers share the other cores.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import machine
from bench.installation import Installation, mocking, register, serving
from bench.load import Answer, Target, abandon, closed_loop, open_loop, percentile, streams
from bench.report import Report
from bench.upstream import CHUNKS, SHORT, stream_model

_SECONDS = 6.0
_RATE_PER_S = 50
_STREAMS = (25, 100, 200, 400)
_ABANDONED = 40
_GAP_MS = 20


@dataclass
class Tally:
    """The rows so far, and how many requests the gateway was asked."""

    rows: list[list[str]]
    asked: int = 0

    def add(self, figure: str, ours: str, direct: str = "", ratio: str = "", cpu: str = "") -> None:
        """One row."""
        self.rows.append([figure, ours, direct, ratio, cpu])


def run() -> Report:
    """All figures, one after the other, each beside the upstream's own in the same run."""
    measured, measuring = machine.split_cores()
    with tempfile.TemporaryDirectory(prefix="galerne-bench-") as folder:
        data = Path(folder) / "data"
        with mocking(measuring) as mock:
            for model in (SHORT, stream_model(0), stream_model(5), stream_model(_GAP_MS)):
                register(data, model, mock)
            with serving(data, measured, "--no-engines") as installation:
                os.sched_setaffinity(0, measuring)
                return uvloop.run(_measure(installation, mock))


async def _measure(installation: Installation, mock: Target) -> Report:
    tally = Tally([])
    idle_mb = machine.pss_mb(installation.pid)
    tally.add("start: alive / ready, s", f"{installation.alive_after_s:.2f} / {installation.ready_after_s:.2f}")
    await closed_loop(installation.target, SHORT, 4, 0.5)
    tally.asked = installation.metered()
    for connections in (32, 256):
        await _requests(tally, installation, mock, connections)
    await _latency(tally, installation, mock)
    for count in _STREAMS:
        await _spaced(tally, installation, mock, count)
    await _burst(tally, installation, mock)
    await _abandoned(tally, installation)
    tally.add("memory (PSS), MiB: idle / after", f"{idle_mb:.0f} / {machine.pss_mb(installation.pid):.0f}")
    tally.add("requests metered / asked", f"{installation.metered()} / {tally.asked}")
    return Report(
        "gateway",
        "One worker on one core, SQLite with synchronous=FULL; the mock and the callers on the other. "
        f"{_SECONDS:.0f} s each; streams of {CHUNKS} chunks {_GAP_MS} ms apart; latency at {_RATE_PER_S} requests/s "
        "with as many direct ones between.",
        ["figure", "gateway", "upstream alone", "ratio", "CPU of the gateway"],
        tally.rows,
        ["The callers are Python too: the upstream's own figure is what they and it reach together on their core."],
    )


async def _requests(tally: Tally, installation: Installation, mock: Target, connections: int) -> None:
    direct = await _timed(lambda: closed_loop(mock, SHORT, connections, _SECONDS / 2), mock)
    ours = await _timed(lambda: closed_loop(installation.target, SHORT, connections, _SECONDS), installation)
    tally.asked += len(ours.answers)
    rates = len(ours.answers) / ours.wall_s, len(direct.answers) / direct.wall_s
    tally.add(
        f"requests/s at {connections} connections",
        f"{rates[0]:,.0f}",
        f"{rates[1]:,.0f}",
        f"{rates[0] / rates[1]:.1%}",
        f"{ours.cpu_s / len(ours.answers) * 1000:.3f} ms a request",
    )


async def _latency(tally: Tally, installation: Installation, mock: Target) -> None:
    ours, direct = await open_loop([installation.target, mock], [SHORT, SHORT], _RATE_PER_S, _SECONDS * 2)
    _check(ours)
    tally.asked += len(ours)
    for percent in (50, 99):
        times_ms = [percentile([each.total_s for each in answers], percent) * 1000 for answers in (ours, direct)]
        added = f"+{times_ms[0] - times_ms[1]:.2f}"
        tally.add(f"latency p{percent} at {_RATE_PER_S}/s, ms", f"{times_ms[0]:.2f}", f"{times_ms[1]:.2f}", added)


async def _spaced(tally: Tally, installation: Installation, mock: Target, count: int) -> None:
    spread_s = _GAP_MS * CHUNKS / 1000
    model = stream_model(_GAP_MS)
    direct = await _timed(lambda: streams(mock, model, count, 2, spread_s), mock)
    ours = await _timed(lambda: streams(installation.target, model, count, 3, spread_s), installation)
    tally.asked += len(ours.answers)
    expected = len(ours.answers) * CHUNKS
    tally.add(
        f"chunk delay p50/p99 at {count} streams, ms",
        _delays_ms(ours.answers),
        _delays_ms(direct.answers),
        f"{percentile(_delays(ours.answers), 50) / percentile(_delays(direct.answers), 50):.1f} x",
        f"{ours.cpu_s / expected * 1e6:.0f} µs a chunk",
    )
    short = expected - len(_delays(ours.answers))
    if short:
        tally.add(f"chunks lost at {count} streams", str(short))


async def _burst(tally: Tally, installation: Installation, mock: Target) -> None:
    model = stream_model(0)
    direct = await _timed(lambda: streams(mock, model, 32, 40, 0), mock)
    ours = await _timed(lambda: streams(installation.target, model, 32, 40, 0), installation)
    tally.asked += len(ours.answers)
    rates = [len(_delays(each.answers)) / each.wall_s for each in (ours, direct)]
    tally.add(
        "chunks/s of streams without gaps",
        f"{rates[0]:,.0f}",
        f"{rates[1]:,.0f}",
        f"{rates[0] / rates[1]:.1%}",
        f"{ours.cpu_s / len(_delays(ours.answers)) * 1e6:.1f} µs a chunk",
    )


async def _abandoned(tally: Tally, installation: Installation) -> None:
    mark = installation.metered()
    await abandon(installation.target, stream_model(_GAP_MS), _ABANDONED, 0.4)
    await asyncio.sleep(0.5)
    tally.asked += _ABANDONED
    tally.add("streams abandoned after 0.4 s: metered / asked", f"{installation.metered() - mark} / {_ABANDONED}")


@dataclass(frozen=True)
class _Timed:
    answers: Sequence[Answer]
    wall_s: float
    cpu_s: float


async def _timed(load: Callable[[], Awaitable[list[Answer]]], of: Installation | Target) -> _Timed:
    pid = of.pid if isinstance(of, Installation) else os.getpid()
    loop = asyncio.get_running_loop()
    began_s, used_s = loop.time(), machine.cpu_s(pid)
    answers = await load()
    _check(answers)
    return _Timed(answers, loop.time() - began_s, machine.cpu_s(pid) - used_s)


def _check(answers: Sequence[Answer]) -> None:
    wrong = [answer.status for answer in answers if answer.status != 200]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(answers)} requests failed, the first with status {wrong[0]}")


def _delays(answers: Sequence[Answer]) -> list[float]:
    return [delay for answer in answers for delay in answer.delays_s]


def _delays_ms(answers: Sequence[Answer]) -> str:
    delays = _delays(answers)
    return f"{percentile(delays, 50) * 1000:.2f} / {percentile(delays, 99) * 1000:.1f}"
