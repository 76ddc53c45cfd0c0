"""What the gateway costs beside an upstream alone: requests a second, latency, the delay of each chunk, CPU, memory.

The server runs on one core without engines, with every duty that production has. The mock upstream, the callers and,
where one is used, PostgreSQL share the other cores.
"""

import tempfile
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import uvloop

from bench import machine, peers
from bench.installation import Installation, Place, serving, set_up
from bench.load import percentile
from bench.measurements import (
    ABANDONED,
    ABANDONED_AFTER_S,
    GAP_MS,
    MODELS,
    RATE_PER_S,
    Figures,
    Laboratory,
    Plan,
    measure,
)
from bench.postgresql import running_postgresql
from bench.processes import mocking
from bench.report import Report
from bench.upstream import CHUNKS

_STARTS = 3
_REQUESTS_PER_S = {32: 3000, 256: 6000}
_HELD = 400
_HELD_DELAY_MS = 15
_CPU_US = 45
_ADDED_MS = 1
_IDLE_MB = 100
_AFTER_MB = 130
_COLD_START_S = 1.5
_ABOUT_CALLERS = (
    "CPU of the upstream alone is the mock's own. The callers are Python too: the upstream's own rate is what they and "
    "it reach together, so their core is full there; beside the gateway it must not be."
)


@dataclass(frozen=True)
class _Bookkeeping:
    asked: int
    metered: int
    logged: int
    sound: bool


@dataclass(frozen=True)
class _Loading:
    """What the control plane takes of a server that has served inference alone: memory, and time of a first request."""

    both_mb: float
    first_s: float

    @classmethod
    def of(cls, installation: Installation) -> "_Loading":
        began_s = time.monotonic()
        installation.metered()
        took_s = time.monotonic() - began_s
        return cls(machine.pss_mb(installation.pid), took_s)

    def add_to(self, table: "_Table") -> None:
        table.add("memory (PSS) after, the control plane loaded too, MB", f"{self.both_mb:.0f}")
        table.add("first request to the control plane, s", f"{self.first_s:.2f}")


class _Table:
    """Rows of figures, each beside the upstream's own and beside what it ought to be."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []

    def add(self, figure: str, ours: str, direct: str = "", ratio: str = "") -> "_Table":
        self.rows.append([figure, ours, direct, ratio, "", ""])
        return self

    def wants(self, target: str, *, met: bool) -> None:
        self.rows[-1][4:] = [target, "yes" if met else "NO"]


def run(*, postgresql: bool = False, with_peers: bool = False, quick: bool = False) -> list[Report]:
    """The gateway's figures, each beside the upstream's own in the same run; with peers, theirs beside ours."""
    measured, callers = machine.split_cores()
    plan = Plan().quick() if quick else Plan()
    with tempfile.TemporaryDirectory(prefix="galerne-bench-") as folder, mocking(callers) as mock:
        laboratory = Laboratory(mock, callers, Path(folder))
        with running_postgresql(callers) if postgresql else nullcontext() as database:
            place = Place(Path(folder) / "data", database.address if database else None)
            laboratory = replace(laboratory, neighbours=[database.pid] if database else [])
            ours, reports = _ours(place, laboratory, measured, plan)
        if with_peers:
            others = peers.measure_all(laboratory, measured, plan)
            reports.append(peers.compare(ours, others))
    return reports


def _ours(place: Place, laboratory: Laboratory, cores: Collection[int], plan: Plan) -> tuple[Figures, list[Report]]:
    key = set_up(place, laboratory.mock.target, MODELS)
    starts_s: list[float] = []
    for _ in range(_STARTS - 1):
        with _started(place, key, cores) as installation:
            starts_s.append(installation.subject.cold_start_s)
    with _started(place, key, cores) as installation, machine.on_cores(laboratory.callers):
        starts_s.append(installation.subject.cold_start_s)
        before = place.metered(), installation.logged()
        figures = uvloop.run(measure(installation.subject, laboratory, plan))
        metered, logged = place.metered() - before[0], installation.logged() - before[1]
        books = _Bookkeeping(figures.asked, metered, logged, place.books_are_sound())
        loading = _Loading.of(installation)
    table = _Table()
    _cold_start(table, starts_s)
    _requests(table, figures)
    _latency(table, figures)
    _streams(table, figures)
    _rest(table, figures, books)
    loading.add_to(table)
    return figures, [_report(table, place, plan)]


@contextmanager
def _started(place: Place, key: str, cores: Collection[int]) -> Generator[Installation]:
    with serving(place, key, cores, "--no-engines") as installation:
        yield installation


def _report(table: _Table, place: Place, plan: Plan) -> Report:
    database = "PostgreSQL" if place.database_url else "SQLite"
    others = "the mock, PostgreSQL and the callers" if place.database_url else "the mock and the callers"
    return Report(
        f"gateway, {database}",
        f"One worker on one core; {database}, durable; keys, limits, prices, credit, journal, metering, metrics and "
        f"request log on; {others} on the other core. {plan.seconds:.0f} s each; streams of {CHUNKS} chunks, "
        f"{GAP_MS} ms apart; latency at {RATE_PER_S} requests/s with as many direct ones between; fdatasync of an "
        "append of 4 KiB at the same rate, just before and after.",
        ["figure", "gateway", "upstream alone", "ratio", "target", "met"],
        table.rows,
        [_ABOUT_CALLERS],
    )


def _cold_start(table: _Table, starts_s: Sequence[float]) -> None:
    took_s = median(starts_s)
    table.add(f"cold start to first answer, s (median of {len(starts_s)})", f"{took_s:.2f}").wants(
        f"<= {_COLD_START_S}", met=took_s <= _COLD_START_S
    )


def _requests(table: _Table, figures: Figures) -> None:
    for connections, beside in figures.requests.items():
        ours, direct = beside.ours, beside.direct
        if ours.failed:
            raise SystemExit(f"{ours.failed} of the requests at {connections} connections failed")
        target = _REQUESTS_PER_S[connections]
        rates = f"{ours.per_s:,.0f}", f"{direct.per_s:,.0f}", f"{ours.per_s / direct.per_s:.1%}"
        table.add(f"requests/s at {connections} connections", *rates).wants(f">= {target:,}", met=ours.per_s >= target)
        cpu = f"{ours.cpu_ms:.3f}", f"{direct.cpu_ms:.3f}", _times(ours.cpu_ms, direct.cpu_ms)
        table.add("- CPU a request, ms", *cpu)
        busy = [f"{each.core_busy:.0%} ({each.load_busy:.0%})" for each in (ours, direct)]
        table.add("- callers' core busy (by this benchmark)", *busy)


def _latency(table: _Table, figures: Figures) -> None:
    sync_ms = [percentile(figures.fdatasync_ms, percent) for percent in (50, 99)]
    table.add("fdatasync of 4 KiB p50 / p99, ms", f"{sync_ms[0]:.2f} / {sync_ms[1]:.2f}")
    both = figures.latencies_ms
    for percent in (50, 99):
        ours_ms, direct_ms = percentile(both.ours, percent), percentile(both.direct, percent)
        times = f"{ours_ms:.2f}", f"{direct_ms:.2f}", _times(ours_ms, direct_ms)
        table.add(f"latency p{percent} at {RATE_PER_S}/s, ms", *times)
    added_ms, most_ms = percentile(both.ours, 50) - percentile(both.direct, 50), _ADDED_MS + sync_ms[0]
    table.add("added latency p50, ms", f"{added_ms:.2f}").wants(
        f"<= {_ADDED_MS} + fdatasync p50 = {most_ms:.2f}", met=added_ms <= most_ms
    )


def _streams(table: _Table, figures: Figures) -> None:
    for count, beside in figures.streams.items():
        ours, direct = beside.ours, beside.direct
        for percent, our_ms, direct_ms in (
            (50, ours.delay_p50_ms, direct.delay_p50_ms),
            (99, ours.delay_p99_ms, direct.delay_p99_ms),
        ):
            delays = f"{our_ms:.2f}", f"{direct_ms:.2f}", _times(our_ms, direct_ms)
            table.add(f"chunk delay p{percent} at {count} streams, ms", *delays)
        table.wants(f"<= {_HELD_DELAY_MS}", met=ours.delay_p99_ms <= _HELD_DELAY_MS)
        cpu = f"{ours.cpu_us:.0f}", f"{direct.cpu_us:.0f}", _times(ours.cpu_us, direct.cpu_us)
        table.add(f"CPU a chunk at {count} streams, µs", *cpu).wants(f"<= {_CPU_US}", met=ours.cpu_us <= _CPU_US)
        if ours.failed or ours.lost_chunks:
            table.add(f"streams failed / chunks lost at {count}", f"{ours.failed} / {ours.lost_chunks}")
    held = [count for count, beside in figures.streams.items() if beside.ours.held(_HELD_DELAY_MS)]
    most = max(held, default=0)
    table.add(f"streams held, delay p99 <= {_HELD_DELAY_MS} ms", str(most)).wants(f">= {_HELD}", met=most >= _HELD)


def _rest(table: _Table, figures: Figures, books: _Bookkeeping) -> None:
    if figures.burst is not None:
        ours, direct = figures.burst.ours, figures.burst.direct
        rates = ours.chunks_per_s, direct.chunks_per_s
        table.add("chunks/s without gaps", f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", f"{rates[0] / rates[1]:.1%}")
        cpu = f"{ours.cpu_us:.1f}", f"{direct.cpu_us:.1f}", _times(ours.cpu_us, direct.cpu_us)
        table.add("- CPU a chunk, µs", *cpu)
    left = figures.abandoned
    table.add(f"{ABANDONED} streams abandoned after {ABANDONED_AFTER_S} s: upstream stopped", str(left.stopped)).wants(
        f"{left.begun} begun", met=left.stopped == left.begun
    )
    for moment, found_mb, most_mb in (("idle", figures.idle_mb, _IDLE_MB), ("after", figures.after_mb, _AFTER_MB)):
        table.add(f"memory (PSS) {moment}, MB", f"{found_mb:.0f}").wants(f"<= {most_mb}", met=found_mb <= most_mb)
    for what, count in (("metered", books.metered), ("logged", books.logged)):
        table.add(f"requests {what}", f"{count:,}").wants(f"{books.asked:,} asked", met=count == books.asked)
    table.add("every balance is what its transfers say", "yes" if books.sound else "no").wants("yes", met=books.sound)


def _times(ours: float, direct: float) -> str:
    return f"{ours / direct:.1f} x" if direct else ""
