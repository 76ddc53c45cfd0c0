"""What a month's use comes to on an invoice: by line and tier of volume, each amount price times quantity.

Steps count what was used in a month at one price, whenever it was billed. So what comes late or is corrected is billed,
in its later month, as the difference to what was billed before: over all months the sums are those of the steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.book import Rate
from galerne.billing.prices.reading import read_book
from galerne.billing.prices.volume_tiers import amount_nano, tier_quantities
from galerne.billing.rating.rater import LineKey, tier_prices
from galerne.billing.rating.rows import month_of, month_start, next_month
from galerne.billing.rating.sums import BUCKETS, KEYS, LINES

_ROW = BUCKETS.c
_LINE = tuple(LINES.c[name] for name in LineKey._fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """A line of an invoice: `quantity` units at `price_nano` for `per` of them are `nano`, rounded once, half to even.

    `requests_nano` is what the requests cost one by one, at the rate's first price, as prepaid accounts were charged.
    `nano` is that plus `volume_nano` (what steps change) plus `rounding_nano` (for the account `rounding`). `month` is
    when it was used: earlier than the invoice's if it came or was corrected late, and then amounts may be negative.
    """

    month: str
    line: LineKey
    currency: str
    quantity: int
    price_nano: int
    per: int
    nano: int
    requests_nano: int
    volume_nano: int
    rounding_nano: int


class LineSum(NamedTuple):
    """What one line's use in a month came to, request by request: up to a billing period, and before it."""

    line: LineKey
    currency: str
    quantity: int
    nano: int
    quantity_before: int
    nano_before: int


async def usage_lines(
    session: AsyncSession, organisation_id: str, period: str, rates: Mapping[str, Rate] | None = None
) -> list[UsageLine]:
    """What an organisation's use comes to in a billing period (`2026-11`), in order of month, currency and line.

    Amounts of different currencies stand side by side. `rates` are the price book's by id; left out they are read.
    """
    if rates is None:
        rates = {rate.id: rate for rate in (await read_book(session)).rates}
    own = (_ROW.key_number.in_(_keys(organisation_id)), _ROW.period == period)
    first = await session.scalar(select(func.min(_ROW.hour)).where(*own))
    lines: list[UsageLine] = []
    for month in () if first is None else _months(month_of(first), period):
        lines += lines_of(rates, month, await _sums(session, organisation_id, month, period))
    return lines


def lines_of(rates: Mapping[str, Rate], month: str, sums: Sequence[LineSum]) -> list[UsageLine]:
    """The lines of one month's use; all lines of one `rate_id` count together, in their order. Pure."""
    by_price: dict[tuple[str, str], list[LineSum]] = {}
    for each in sorted(sums):
        by_price.setdefault((each.currency, each.line.rate_id), []).append(each)
    lines: list[UsageLine] = []
    for (_, rate_id), group in by_price.items():
        rate, prices, starts = tier_prices(rates, rate_id)
        now = tier_quantities(starts, rate.volume, [each.quantity for each in group])
        before = tier_quantities(starts, rate.volume, [each.quantity_before for each in group])
        for each, here, there in zip(group, now, before, strict=True):
            parts = [(index, here[index] - there[index]) for index in range(len(starts))]
            lines += _tiers(month, each, (rate.per, prices), [part for part in parts if part[1]])
    return sorted(lines, key=lambda line: (line.month, line.currency, line.line))


def _tiers(
    month: str, summed: LineSum, price: tuple[int, list[Fraction]], parts: list[tuple[int, int]]
) -> list[UsageLine]:
    per, prices = price
    requests = summed.nano - summed.nano_before
    if not parts and requests:
        parts = [(0, 0)]  # the same quantity, and yet a nano-unit less or more: all of it is rounding
    first = [amount_nano(quantity, prices[0]) for _, quantity in parts]
    rounding = sum(first) - requests
    lines: list[UsageLine] = []
    for (index, quantity), at_first in zip(parts, first, strict=True):
        exact = prices[index] * per
        nano = amount_nano(quantity, prices[index])
        lines.append(
            UsageLine(
                month=month,
                line=summed.line._replace(tier_index=index),
                currency=summed.currency,
                quantity=quantity,
                price_nano=exact.numerator,
                per=per * exact.denominator,
                nano=nano,
                requests_nano=at_first - rounding,
                volume_nano=nano - at_first,
                rounding_nano=rounding,
            )
        )
        rounding = 0
    return lines


async def _sums(session: AsyncSession, organisation_id: str, month: str, period: str) -> list[LineSum]:
    earlier = _ROW.period != period
    by_line = (
        select(
            _ROW.line_number,
            func.sum(_ROW.quantity).label("quantity"),
            func.sum(_ROW.nano).label("nano"),
            func.sum(case((earlier, _ROW.quantity), else_=0)).label("quantity_before"),
            func.sum(case((earlier, _ROW.nano), else_=0)).label("nano_before"),
        )
        .where(_ROW.key_number.in_(_keys(organisation_id)), _ROW.period.in_(_months(month, period)))
        .where(_ROW.hour >= month_start(month), _ROW.hour < month_start(next_month(month)))
        .group_by(_ROW.line_number)
        .subquery()
    )
    sums = (by_line.c[name] for name in LineSum._fields[2:])
    columns: list[ColumnElement[Any]] = [*_LINE, LINES.c.currency, *sums]
    query: Select[Any] = select(*columns).join(LINES, LINES.c.number == by_line.c.line_number)
    # PostgreSQL sums big integers as decimals.
    rows = await session.execute(query)
    return [LineSum(_line(tuple(row)[:7]), row.currency, *map(int, tuple(row)[8:])) for row in rows]


def _keys(organisation_id: str) -> Select[tuple[int]]:
    return select(KEYS.c.number).where(KEYS.c.organisation_id == organisation_id)


def _line(values: Sequence[Any]) -> LineKey:
    return LineKey(*values)


def _months(first: str, last: str) -> list[str]:
    months: list[str] = []
    while first <= last:
        months.append(first)
        first = next_month(first)
    return months
