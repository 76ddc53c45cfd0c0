"""Prices as a child would keep them: every price ever set in one list, and the newest that has begun counts."""

from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

CLASSES = ("input", "cached", "output")
USUAL = {("tier", "priority"): Fraction(7, 4), ("batch", ""): Fraction(1, 2), ("cached", ""): Fraction(1, 10)}


@dataclass(frozen=True)
class NaivePrice:
    id: str
    model: str
    kind: str
    begin: datetime
    version: int
    nano: int | None
    mode: str | None = None
    steps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class NaiveFactor:
    kind: str
    value: str
    begin: datetime
    version: int
    factor: Fraction


class Line(NamedTuple):
    model: str
    kind: str
    tier: str
    zone: str
    batch: bool
    rate: str


Parts = dict[Line, tuple[int, int]]
"""How many units and nano-units on each line."""


@dataclass
class NaivePrices:
    prices: list[NaivePrice] = field(default_factory=list[NaivePrice])
    factors: list[NaiveFactor] = field(default_factory=list[NaiveFactor])

    @property
    def version(self) -> int:
        return max((each.version for each in (*self.prices, *self.factors)), default=0)

    def newest(self, model: str, kind: str, at: datetime, version: int) -> NaivePrice | None:
        some = [each for each in self.prices if (each.model, each.kind) == (model, kind)]
        begun = [each for each in some if each.begin <= at and each.version <= version]
        found = max(begun, key=lambda each: (each.begin, each.version), default=None)
        return None if found is None or found.nano is None else found

    def factor(self, kind: str, value: str, at: datetime, version: int) -> Fraction:
        some = [each for each in self.factors if (each.kind, each.value) == (kind, value)]
        begun = [each for each in some if each.begin <= at and each.version <= version]
        found = max(begun, key=lambda each: (each.begin, each.version), default=None)
        return USUAL.get((kind, value), Fraction(1)) if found is None else found.factor

    def unit(self, model: str, kind: str, tier: str, at: datetime, version: int) -> tuple[NaivePrice, Fraction] | None:
        times = self.factor("tier", "standard" if tier == "batch" else tier, at, version)
        if tier == "batch":
            times *= self.factor("batch", "", at, version)
        found = self.newest(model, kind, at, version)
        if found is None and kind == "cached":
            found = self.newest(model, "input", at, version)
            times *= self.factor("cached", "", at, version)
        return None if found is None else (found, times)

    def cost(
        self, model: str, tokens: tuple[int, int, int], tier: str, at: datetime, version: int
    ) -> tuple[int, Parts] | None:
        """What a request costs, rounded once, and what of it is on which line; None without a price."""
        units = [self.unit(model, kind, tier, at, version) for kind in CLASSES]
        exact, parts = Fraction(0), Parts()
        for kind, count, unit in zip(CLASSES, tokens, units, strict=True):
            if unit is None:
                return None
            price, times = unit
            before = round(exact)
            exact += count * Fraction(price.nano or 0, 10**6) * times
            if count:
                rate = price.id if times == 1 else f"{price.id}*{times}"
                line = Line(model, kind, "standard" if tier == "batch" else tier, "", tier == "batch", rate)
                parts[line] = (count, round(exact) - before)
        return round(exact), parts

    def tiers(self, rate: str) -> tuple[str | None, list[int], list[Fraction]]:
        """Of a rate's name on a line: the mode, above how many units each price counts, and the prices of one unit."""
        name, _, times = rate.partition("*")
        (price,) = [each for each in self.prices if each.id == name]
        starts = [0, *(start for start, _ in price.steps)]
        nanos = [price.nano or 0, *(nano for _, nano in price.steps)]
        return price.mode, starts, [Fraction(nano, 10**6) * Fraction(times or 1) for nano in nanos]
