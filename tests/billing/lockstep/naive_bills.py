"""Usage and invoices as a child would keep them: what each request counts as, and what each month comes to."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from tests.billing.lockstep.naive_prices import Line, NaivePrices, Parts

CENT = 10**7
TAX = Fraction(1, 5)


class Revision(NamedTuple):
    state: str
    period: str
    version: int
    parts: Parts


@dataclass
class NaiveEvent:
    id: str
    owner: str
    model: str
    tier: str
    at: datetime
    tokens: tuple[int, int, int]
    paid: int = 0
    revisions: list[Revision] = field(default_factory=list[Revision])

    @property
    def month(self) -> str:
        return f"{self.at:%Y-%m}"

    @property
    def state(self) -> str:
        return self.revisions[-1].state if self.revisions else "waiting"

    def billed(self, periods: set[str]) -> Parts:
        """What its revisions in these periods add, less what they take away."""
        sums: dict[Line, list[int]] = {}
        before = Parts()
        for each in self.revisions:
            if each.period in periods:
                for sign, parts in ((1, each.parts), (-1, before)):
                    for line, (quantity, nano) in parts.items():
                        known = sums.setdefault(line, [0, 0])
                        known[0] += sign * quantity
                        known[1] += sign * nano
            before = each.parts
        return {line: (amounts[0], amounts[1]) for line, amounts in sums.items() if any(amounts)}


class NaiveLine(NamedTuple):
    """`unit` is the price of one unit in the currency, `minor` what the line comes to in cents."""

    kind: str
    quantity: int
    unit: Fraction
    exact_nano: int

    @property
    def minor(self) -> int:
        return cents(self.quantity * self.unit)


@dataclass
class NaiveInvoice:
    owner: str
    period: str | None
    lines: list[NaiveLine]
    number: str | None = None
    root: bytes = b""
    size: int = 0
    state: str = "final"
    net: int = 0
    tax: int = 0
    paid: int = 0
    credited: int = 0
    carried: bool = False

    @property
    def due(self) -> int:
        return self.net + self.tax

    @property
    def open(self) -> int:
        return self.due - self.paid - self.credited

    @property
    def named(self) -> tuple[object, ...]:
        open_ = self.open if self.number and self.state != "void" else None
        return (self.number or "", self.owner, self.period or "", self.state, self.net, self.tax, open_)

    def settle(self) -> None:
        if self.state in ("final", "paid"):
            self.state = "final" if self.open > 0 else "paid"


@dataclass
class NaiveBills:
    prices: NaivePrices = field(default_factory=NaivePrices)
    events: dict[str, NaiveEvent] = field(default_factory=dict[str, NaiveEvent])
    closed: list[str] = field(default_factory=list[str])
    invoices: list[NaiveInvoice] = field(default_factory=list[NaiveInvoice])

    def period(self, event: NaiveEvent) -> str:
        month = event.month
        while month in self.closed:
            month = following(month)
        return month

    def revise(self, event: NaiveEvent, state: str | None, version: int) -> None:
        found = self.prices.cost(event.model, event.tokens, event.tier, event.at, version)
        parts = Parts() if found is None or state == "voided" else found[1]
        state = state or ("unmatched" if found is None else "rated")
        event.revisions.append(Revision(state, self.period(event), version, parts))

    def waiting(self, after: str = "") -> list[str]:
        return sorted(name for name, each in self.events.items() if not each.revisions and name > after)

    def rate(self, most: int | None = None, last: str | None = None) -> list[NaiveEvent]:
        waiting = [name for name in self.waiting() if last is None or name <= last][:most]
        for name in waiting:
            self.revise(self.events[name], None, self.prices.version)
        return [self.events[name] for name in waiting]

    def rate_queue(self) -> int:
        found = [each for each in self.events.values() if each.state == "unmatched"]
        priced = [each for each in found if self.cost(each, self.prices.version) is not None]
        for each in priced:
            self.revise(each, None, self.prices.version)
        return len(priced)

    def cost(self, event: NaiveEvent, version: int) -> tuple[int, Parts] | None:
        return self.prices.cost(event.model, event.tokens, event.tier, event.at, version)

    def usage_lines(self, owner: str, period: str) -> list[NaiveLine]:
        """A month's lines: for each month of use, what all of it comes to by now less what it came to before."""
        lines: list[NaiveLine] = []
        own = [each for each in self.events.values() if each.owner == owner]
        for month in sorted({each.month for each in own}):
            now, before = (self.sums(own, month, period, last) for last in (period, ""))
            by_rate: dict[str, list[Line]] = {}
            for line in sorted({*now, *before}):
                by_rate.setdefault(line.rate, []).append(line)
            found: list[tuple[Line, int, NaiveLine]] = []
            for rate, group in by_rate.items():
                found += self.tier_lines(rate, group, now, before)
            lines += [line for _, _, line in sorted(found, key=lambda each: (each[0], each[1]))]
        return lines

    def sums(self, own: list[NaiveEvent], month: str, period: str, last: str) -> dict[Line, tuple[int, int]]:
        # Up to the period, or before it: periods compare as text does.
        periods = {each for each in self.months() if each < period}
        if last:
            periods.add(period)
        sums: Counter[Line] = Counter()
        nanos: Counter[Line] = Counter()
        for event in own:
            if event.month == month:
                for line, (quantity, nano) in event.billed(periods).items():
                    sums[line] += quantity
                    nanos[line] += nano
        return {line: (sums[line], nanos[line]) for line in sums.keys() | nanos.keys()}

    def months(self) -> set[str]:
        return {each.period for event in self.events.values() for each in event.revisions}

    def tier_lines(
        self, rate: str, group: list[Line], now: dict[Line, tuple[int, int]], before: dict[Line, tuple[int, int]]
    ) -> list[tuple[Line, int, NaiveLine]]:
        mode, starts, prices = self.prices.tiers(rate)
        here, there = ([sums.get(line, (0, 0)) for line in group] for sums in (now, before))
        found: list[tuple[Line, int, NaiveLine]] = []
        shares = zip(*(on_tiers(mode, starts, [each[0] for each in side]) for side in (here, there)), strict=True)
        for line, first, last, (mine, theirs) in zip(group, there, here, shares, strict=True):
            requests = last[1] - first[1]
            parts = [(index, mine[index] - theirs[index]) for index in range(len(starts))]
            parts = [each for each in parts if each[1]] or ([(0, 0)] if requests else [])
            rounding = sum(round(quantity * prices[0]) for _, quantity in parts) - requests
            for index, quantity in parts:
                exact = round(quantity * prices[index]) - rounding
                found.append((line, index, NaiveLine("usage", quantity, prices[index] / 10**9, exact)))
                rounding = 0
        return found

    def leaves(self, owner: str, period: str) -> list[bytes]:
        found: list[bytes] = []
        for name in sorted(name for name, each in self.events.items() if each.owner == owner):
            parts = self.events[name].billed({period})
            for line in sorted(parts, key=lambda each: (("input", "cached", "output").index(each.kind), each)):
                fields = {
                    "model_id": line.model,
                    "token_class": line.kind,
                    "service_tier": line.tier,
                    "zone": line.zone,
                    "batch": line.batch,
                    "rate_id": line.rate,
                    "tier_index": 0,
                }
                leaf = {"event": name, "line": fields, "quantity": parts[line][0], "nano": parts[line][1]}
                found.append(json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode())
        return found

    def paid_by_credit(self, owner: str, period: str) -> int:
        paid = 0
        for event in self.events.values():
            first = next((each.period for each in event.revisions if each.state == "rated"), None)
            if event.owner == owner and first == period:
                paid += event.paid
        return paid

    def draft(self, owner: str, period: str) -> NaiveInvoice | None:
        """What a month comes to, without a number; None where there is nothing to say."""
        lines = self.usage_lines(owner, period)
        credit = self.paid_by_credit(owner, period)
        if credit:
            # What is left to pay is rounded once: the line takes off what the others came to by themselves.
            rest = cents(Fraction(sum(each.exact_nano for each in lines) - credit, 10**9))
            minor = rest - sum(each.minor for each in lines)
            lines.append(NaiveLine("paid_by_credit", -1 if minor < 0 else 1, Fraction(abs(minor), 100), -credit))
        for each in self.invoices:
            if each.owner == owner and each.state == "empty" and each.net < 0 and not each.carried:
                each.carried = True
                lines.append(NaiveLine("carried", -1, Fraction(-each.net, 100), each.net * CENT))
        if not lines:
            return None
        leaves = self.leaves(owner, period)
        made = NaiveInvoice(owner, period, lines, root=merkle(leaves), size=len(leaves))
        made.net = sum(each.minor for each in lines)
        made.tax = cents(Fraction(made.net, 100) * TAX)
        return made

    def number(self, series: str) -> str:
        return f"{series}-{1 + sum((each.number or '').startswith(series) for each in self.invoices):06d}"


def following(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year + 1}-01" if number == 12 else f"{year}-{number + 1:02d}"


def cents(amount: Fraction) -> int:
    whole = int(abs(amount) * 100 + Fraction(1, 2))
    return -whole if amount < 0 else whole


def on_tiers(mode: str | None, starts: list[int], quantities: list[int]) -> list[list[int]]:
    whole = sum(quantities)
    if mode == "volume":
        reached = max(index for index, start in enumerate(starts) if not start or whole > start)
        return [[quantity * (index == reached) for index in range(len(starts))] for quantity in quantities]
    bounds = [*zip(starts, [*starts[1:], max(whole, starts[-1])], strict=True)]
    shares: list[list[int]] = []
    for number, quantity in enumerate(quantities):
        begin = sum(quantities[:number])
        shares.append([max(0, min(begin + quantity, end) - max(begin, start)) for start, end in bounds])
    return shares


def merkle(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word by word."""
    if len(leaves) < 2:
        return hashlib.sha256(b"\0" + leaves[0]).digest() if leaves else hashlib.sha256(b"").digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + merkle(leaves[:half]) + merkle(leaves[half:])).digest()
