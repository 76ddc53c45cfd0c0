"""Other gateways on the same core, before the same upstream, in the same run; each in an environment of its own.

They are installed below `.cache/` when they are first asked for. One that cannot be installed or started is left out,
and the report says why.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import uvloop

from bench import machine
from bench.load import percentile
from bench.measurements import ABANDONED, GAP_MS, RATE_PER_S, Beside, Figures, Laboratory, Plan, Streams, measure
from bench.peers import litellm, portkey
from bench.report import Report
from bench.upstream import CHUNKS

_PEERS: tuple[ModuleType, ...] = (portkey, litellm)
_CACHE = Path(__file__).parents[2] / ".cache" / "bench"
_CONNECTIONS = 32
_STREAMS = (25, 100, 400)


@dataclass(frozen=True)
class Peer:
    """Another gateway: what exactly it was, and its figures or why there are none."""

    name: str
    what: str
    figures: Figures | None
    failure: str = ""


def measure_all(laboratory: Laboratory, cores: Collection[int], plan: Plan) -> list[Peer]:
    """Every peer on these cores, one after the other."""
    smaller = Plan((_CONNECTIONS,), _STREAMS, plan.seconds, insists=False)
    return [_measured(module, laboratory, cores, smaller) for module in _PEERS]


def compare(ours: Figures, peers: Sequence[Peer]) -> Report:
    """Our figures and theirs, each of theirs as a multiple of ours too."""
    found = [peer for peer in peers if peer.figures is not None]
    columns = ["figure", "Galerne", *(each for peer in found for each in (peer.name, "x ours"))]
    all_figures = [ours, *(peer.figures for peer in found if peer.figures is not None)]
    remarks = [f"{peer.name}: {peer.what}." for peer in found]
    remarks += [f"{peer.name} was not measured: {peer.failure}." for peer in peers if peer.figures is None]
    return Report(
        "gateway beside peers",
        f"One process on the same core in the same run, one after the other, before the same mock; streams of {CHUNKS} "
        f"chunks {GAP_MS} ms apart; sustained: none failed or short, delay p99 <= 100 ms, median length <= 1.1 times "
        "the upstream's. A dash: it did not get that far, because it did not sustain fewer streams.",
        columns,
        [_row(name, [of(each) for each in all_figures], form) for name, of, form in _rows()],
        [*remarks, "Galerne ran with all its duties on, the peers without keys, limits, spend or any durable record."],
    )


def _measured(module: ModuleType, laboratory: Laboratory, cores: Collection[int], plan: Plan) -> Peer:
    folder = _CACHE / module.NAME.lower()
    try:
        module.install(folder)
        with (
            module.starting(folder, laboratory.mock.target, cores) as subject,
            machine.on_cores(laboratory.callers),
        ):
            return Peer(module.NAME, module.WHAT, uvloop.run(measure(subject, laboratory, plan)))
    except (RuntimeError, OSError) as failure:
        return Peer(module.NAME, module.WHAT, None, str(failure) or type(failure).__name__)


def _rows() -> list[tuple[str, Callable[[Figures], float | None], str]]:
    rows: list[tuple[str, Callable[[Figures], float | None], str]] = [
        ("cold start to first answer, s", lambda each: each.subject.cold_start_s, ".2f"),
        (f"requests/s at {_CONNECTIONS} connections", lambda each: each.requests[_CONNECTIONS].ours.per_s, ",.0f"),
        ("- as a share of the upstream alone", _share, ".2%"),
        ("- failed", lambda each: each.requests[_CONNECTIONS].ours.failed, ".0f"),
        ("- CPU a request, ms", lambda each: each.requests[_CONNECTIONS].ours.cpu_ms, ".3f"),
        (f"added latency p50 at {RATE_PER_S}/s, ms", lambda each: _added_ms(each, 50), ".2f"),
        (f"added latency p99 at {RATE_PER_S}/s, ms", lambda each: _added_ms(each, 99), ".2f"),
        ("streams sustained", _sustained, ".0f"),
    ]
    for count in _STREAMS:
        rows += [
            (f"chunk delay p50 at {count} streams, ms", _of_streams(count, lambda each: each.ours.delay_p50_ms), ".2f"),
            ("- as a multiple of the upstream alone", _of_streams(count, _delayed), ".1f"),
            (f"chunk delay p99 at {count} streams, ms", _of_streams(count, lambda each: each.ours.delay_p99_ms), ".1f"),
            (f"CPU a chunk at {count} streams, µs", _of_streams(count, lambda each: each.ours.cpu_us), ".0f"),
        ]
    return [
        *rows,
        ("chunks/s without gaps", lambda each: each.burst.ours.chunks_per_s if each.burst else None, ",.0f"),
        (f"upstream stopped, of {ABANDONED} abandoned streams that it had begun", _stopped, ".0%"),
        ("memory (PSS) idle, MB", lambda each: each.idle_mb, ".0f"),
        ("memory (PSS) after, MB", lambda each: each.after_mb, ".0f"),
    ]


def _share(figures: Figures) -> float:
    beside = figures.requests[_CONNECTIONS]
    return beside.ours.per_s / beside.direct.per_s


def _stopped(figures: Figures) -> float | None:
    left = figures.abandoned
    return left.stopped / left.begun if left.begun else None


def _added_ms(figures: Figures, percent: float) -> float:
    both = figures.latencies_ms
    return percentile(both.ours, percent) - percentile(both.direct, percent)


def _sustained(figures: Figures) -> int:
    return max(
        (count for count in _STREAMS if count in figures.streams and figures.streams[count].ours.held()), default=0
    )


def _of_streams(count: int, of: Callable[[Beside[Streams]], float]) -> Callable[[Figures], float | None]:
    def figure(figures: Figures) -> float | None:
        beside = figures.streams.get(count)
        return None if beside is None else of(beside)

    return figure


def _delayed(beside: Beside[Streams]) -> float:
    return beside.ours.delay_p50_ms / beside.direct.delay_p50_ms


def _row(name: str, values: Sequence[float | None], form: str) -> list[str]:
    ours, *theirs = values
    row = [name, _shown(ours, form)]
    for each in theirs:
        row += [_shown(each, form), _multiple(each / ours) if each is not None and ours else ""]
    return row


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _multiple(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"
