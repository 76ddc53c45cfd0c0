"""Rating that sums as it goes, for storing: what each event costs, and what is added to which hour. Pure.

The same as rating events and summing what comes out, at half the cost: no object is made of each class of each event.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from galerne.billing.prices.pricing import half_even
from galerne.billing.rating.rater import MOST_REQUEST_NANO, LineKey, Plan, Rater
from galerne.kernel import utc_text

Whose = tuple[str | None, str, str]
"""Workspace, key and organisation."""
_HOUR = timedelta(hours=1)
_NOTHING = (0,) * 9  # requests, quantity and nano-units of each class


HourSum = tuple[Whose, str, datetime, LineKey, int, int, int]
"""What is added to one key's hour on one line: whose, period, the hour's beginning, line, requests, quantity, nano."""


@dataclass(frozen=True, slots=True)
class NewSums:
    """Sums to be added, each made when it is asked for; `lines` are the very ones that they name, with currencies."""

    whose: set[Whose]
    lines: list[tuple[LineKey, str]]
    sums: Iterable[HourSum]


class Times(NamedTuple):
    """How events write times, in a way that sorts as time does: `read` makes a time of it, `write` the reverse."""

    read: Callable[[Any], datetime]
    write: Callable[[datetime], Any]


def _same(at: datetime) -> datetime:
    return at


def _of_text(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


AS_TIMES = Times(_same, _same)
"""They are times."""
AS_TEXT = Times(_of_text, utc_text)
"""They are what SQLite has of them."""


@dataclass(slots=True)
class Hour:
    """An hour, or the part of it that has one set of prices, and in which period its use is billed."""

    begin: datetime
    period: str
    prices_since: datetime
    since: Any
    until: Any
    is_late: bool
    cells: dict[tuple[Any, ...], list[Any]] = field(default_factory=dict[tuple[Any, ...], list[Any]])


@dataclass(frozen=True, slots=True)
class Totals:
    """What each event came to, in their order: nano-units (None: it has no price), currency if it has a line, hour."""

    costs: list[tuple[int | None, str | None, Hour]]
    sums: NewSums


def rate_totals(
    rater: Rater, events: Iterable[tuple[Any, ...]], period_at: Callable[[datetime], str], times: Times = AS_TIMES
) -> Totals:
    """Rate events, which are `UsedTokens` or rows like them; `period_at` says in which period an hour is billed."""
    costs: list[tuple[int | None, str | None, Hour]] = []
    append = costs.append
    hours: dict[tuple[datetime, datetime], Hour] = {}
    hour: Hour | None = None
    since = until = None
    cells: dict[tuple[Any, ...], list[Any]] = {}
    for event in events:
        at = event[1]
        if hour is None or not since <= at < until:
            hour = _hour_of(times.read(at), rater, hours, (period_at, times))
            since, until, cells = hour.since, hour.until, hour.cells
        who = event[2:9]
        cell = cells.get(who)
        if cell is None:
            found: list[Any] = [rater.plan(who[2:], hour.prices_since, times.read(at)), *_NOTHING]
            cell = cells[who] = found
        plan: Plan = cell[0]
        if not plan.priced:
            append((None, None, hour))
            continue
        denominator, currency = plan.denominator, None
        exact = cost = place = 0
        for quantity, price, line in zip(event[9:], plan.prices, plan.lines, strict=True):
            if quantity:
                before = cost
                exact += quantity * price
                cost, rest = divmod(exact, denominator)
                rest += rest
                if rest > denominator or (rest == denominator and cost & 1):
                    cost += 1
                if line is not None:
                    currency = plan.currency
                    cell[place + 1] += 1
                    cell[place + 2] += quantity
                    cell[place + 3] += cost - before
            place += 3
        if cost > MOST_REQUEST_NANO:  # as `billable` says
            _take_back(cell, event[9:])
            append((None, None, hour))
            continue
        append((cost, currency, hour))
    return Totals(costs, _new_sums(hours.values()))


def _take_back(cell: list[Any], counts: tuple[int, ...]) -> None:
    plan: Plan = cell[0]
    exact = cost = place = 0
    for quantity, price, line in zip(counts, plan.prices, plan.lines, strict=True):
        before, exact = cost, exact + quantity * price
        cost = half_even(exact, plan.denominator)
        if quantity and line is not None:
            cell[place + 1] -= 1
            cell[place + 2] -= quantity
            cell[place + 3] -= cost - before
        place += 3


def _hour_of(
    at: datetime,
    rater: Rater,
    hours: dict[tuple[datetime, datetime], Hour],
    how: tuple[Callable[[datetime], str], Times],
) -> Hour:
    period_at, times = how
    begin = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    since, until = rater.between(at)
    known = hours.get((begin, since))
    if known is None:
        bounds = times.write(max(begin, since)), times.write(min(begin + _HOUR, until))
        period = period_at(begin)
        known = hours[begin, since] = Hour(begin, period, since, *bounds, period != f"{begin:%Y-%m}")
    return known


def _new_sums(hours: Collection[Hour]) -> NewSums:
    whose = {who[:3] for hour in hours for who in hour.cells}
    plans: dict[int, Plan] = {id(cell[0]): cell[0] for hour in hours for cell in hour.cells.values()}
    lines = [(line, plan.currency) for plan in plans.values() for line in plan.lines if line is not None]
    return NewSums(whose, lines, chain.from_iterable(map(_sums_of, hours)))


def _sums_of(hour: Hour) -> Iterator[HourSum]:
    period, begin = hour.period, hour.begin
    for who, cell in hour.cells.items():
        whose: Whose = who[:3]
        place = 1
        for line in cell[0].lines:
            if cell[place]:
                yield whose, period, begin, line, cell[place], cell[place + 1], cell[place + 2]
            place += 3
