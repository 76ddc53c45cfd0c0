"""Counters that cost an addition: plain numbers on the path of a request, Prometheus' families when it scrapes.

A cell is looked up once and kept; nothing here takes a lock, so one thread counts and any thread may scrape.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

__all__ = [
    "MOST_CELLS",
    "MOST_HISTOGRAMS",
    "OTHER",
    "Buckets",
    "CellCollector",
    "Cells",
    "Family",
    "Number",
    "Readings",
    "counting",
]

MOST_CELLS = 2_000
"""How many label sets one family may have; whatever comes later is counted under labels that all say `other`."""

MOST_HISTOGRAMS = 500
"""The same for a histogram, of which each takes a kilobyte, and 20 lines of a scrape."""

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric's name (without Prometheus' suffixes), its kind, what it means and the names of its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def exposed(self) -> str:
        """The name that a query uses, but for a histogram's `_bucket`, `_sum` and `_count`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


class Number:
    """A count or a level."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Count `amount` more."""
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        """Count `amount` less: for levels only."""
        self.value -= amount

    def samples(self, family: Family, labels: Mapping[str, str]) -> Iterable[Sample]:
        """What Prometheus is told."""
        yield Sample(family.exposed, dict(labels), self.value)


class Buckets:
    """A histogram: `counts` has one entry for each upper bound and one for what lies above them all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one `value`; a bound belongs to the bucket below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, family: Family, labels: Mapping[str, str]) -> Iterable[Sample]:
        """What Prometheus is told: cumulative buckets, count and sum."""
        counts, total = list(self.counts), self.total
        bounds = (*(str(float(bound)) for bound in self.bounds), "+Inf")
        for bound, below in zip(bounds, accumulate(counts), strict=True):
            yield Sample(f"{family.name}_bucket", {**labels, "le": bound}, below)
        yield Sample(f"{family.name}_count", dict(labels), sum(counts))
        yield Sample(f"{family.name}_sum", dict(labels), total)


C = TypeVar("C", Number, Buckets)


class Cells(Generic[C]):
    """One family's cells by their labels' values, at most `MOST_CELLS` or `MOST_HISTOGRAMS`, and one for all others."""

    def __init__(self, family: Family, make: Callable[[], C]) -> None:
        self.family = family
        self._make = make
        self._most = MOST_HISTOGRAMS if family.kind == "histogram" else MOST_CELLS
        self._cells: dict[tuple[str, ...], C] = {}
        if not family.labels:
            self.at()  # a counter without labels is there from the start, so that its rate is known from its first step

    def at(self, *labels: str) -> C:
        """The cell with these labels, made when it is first asked for."""
        found = self._cells.get(labels)
        if found is None:
            if len(self._cells) >= self._most:
                labels = (OTHER,) * len(labels)
            found = self._cells.setdefault(labels, self._make())
        return found

    def items(self) -> list[tuple[dict[str, str], C]]:
        """Every cell there is now, with its labels by their names."""
        cells = list(self._cells.items())
        return [(dict(zip(self.family.labels, labels, strict=True)), cell) for labels, cell in cells]

    def samples(self) -> Iterable[Sample]:
        """What Prometheus is told of all cells."""
        for labels, cell in self.items():
            yield from cell.samples(self.family, labels)


class Readings:
    """A gauge that is read when Prometheus asks: `read` gives values with their labels, each once, and never blocks."""

    def __init__(self, family: Family, read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]) -> None:
        self.family = family
        self.read = read

    def samples(self) -> Iterable[Sample]:
        """What Prometheus is told: the first `MOST_CELLS` values."""
        for labels, value in islice(self.read(), MOST_CELLS):
            yield Sample(self.family.exposed, dict(zip(self.family.labels, labels, strict=True)), value)


class CellCollector(Collector):
    """Turns cells and readings into Prometheus' families at the moment of a scrape."""

    def __init__(self, parts: Sequence[Cells[Number] | Cells[Buckets] | Readings], registry: CollectorRegistry) -> None:
        self._parts = parts
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """The families without their values, by which the registry notices a name that is taken."""
        return [_metric(part.family) for part in self._parts]

    def collect(self) -> Iterable[Metric]:
        """The families with their values."""
        for part in self._parts:
            metric = _metric(part.family)
            metric.samples = list(part.samples())
            yield metric


def counting(family: Family) -> Cells[Number]:
    """A counter's or gauge's cells."""
    return Cells(family, Number)


def _metric(family: Family) -> Metric:
    return Metric(family.name, family.meaning, family.kind)
