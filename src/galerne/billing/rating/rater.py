"""Rating: what requests used becomes what they cost, by the price book alone. Pure, and the same in any order.

A request's cost is rounded once, half to even, exactly as the gateway charged it. Its classes share it by rounding the
running sum, so that they add up to it and none is off by more than a nano-unit.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Literal, NamedTuple

from msgspec import Struct

from galerne.billing.prices.book import PriceBook, Rate, priced_id
from galerne.billing.prices.pricing import TokenClass
from galerne.billing.prices.token_prices import Customer, paying, placed, token_prices

RatingState = Literal["rated", "unmatched", "voided"]

MOST_REQUEST_NANO = 10**15
"""A million of a currency for one request: beyond it a count or a price is a slip."""

_HOUR = timedelta(hours=1)


class UsedTokens(NamedTuple):
    """What rating reads of a usage event."""

    event_id: str
    occurred_at: datetime
    workspace_id: str | None
    key_id: str
    organisation_id: str
    model_id: str
    endpoint: str
    tier: str
    zone: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class LineKey(NamedTuple):
    """What is summed in one line: one rate's price under one set of modifiers, on one tier of volume."""

    model_id: str
    token_class: TokenClass
    service_tier: str
    zone: str
    batch: bool
    rate_id: str
    tier_index: int


class RatedUsage(Struct, frozen=True, gc=False):
    """What one request used of one class and what that cost, in nano-units of `currency`."""

    event_id: str
    organisation_id: str
    workspace_id: str | None
    key_id: str
    occurred_at: datetime
    rate_id: str
    line: LineKey
    quantity: int
    nano: int
    currency: str


class BucketKey(NamedTuple):
    """One key's hour on one line; `hour` is its beginning, UTC."""

    organisation_id: str
    workspace_id: str | None
    key_id: str
    hour: datetime
    currency: str
    line: LineKey


class Sum(NamedTuple):
    """How many requests, how many units, how many nano-units."""

    requests: int
    quantity: int
    nano: int


@dataclass(frozen=True, slots=True)
class Rating:
    """What became of events: rated usage, what each event cost in all, and those without a price."""

    usage: list[RatedUsage] = field(default_factory=list[RatedUsage])
    nano_of: dict[str, int] = field(default_factory=dict[str, int])
    unmatched: list[UsedTokens] = field(default_factory=list[UsedTokens])


CustomerAt = Callable[[str, datetime], Customer]
"""Whose prices an organisation has at a time."""


class Plan(Struct, frozen=True, gc=False):
    """Prices as the inner loop wants them: integers over one denominator, and the lines that they go to."""

    denominator: int
    prices: tuple[int, int, int]
    lines: tuple[LineKey | None, LineKey | None, LineKey | None]
    currency: str
    priced: bool


class Rater:
    """Rates events by one book; remembers what it has resolved, never what it has rated."""

    def __init__(self, book: PriceBook, customer_at: CustomerAt, changes: Iterable[datetime] = ()) -> None:
        # `changes`: when customers change besides, so that plans are kept for a time in which nothing did.
        self._book = book
        self._customer_at = customer_at
        self._changes = sorted({*book.changes, *changes})
        self._plans: dict[tuple[tuple[str, ...], datetime], Plan] = {}
        self._alike: dict[tuple[object, ...], Plan] = {}

    def rate(self, events: Iterable[UsedTokens]) -> Rating:
        """Rate events, each as if it were alone."""
        rating = Rating()
        since, until = _NEVER, _NEVER
        plans: dict[tuple[str, ...], Plan] = {}
        append, nano_of = rating.usage.append, rating.nano_of
        for event in events:
            at = event[1]
            if not since <= at < until:
                since, until = self.between(at)
                plans = {}
            how = event[4:9]
            plan = plans.get(how)
            if plan is None:
                plan = plans[how] = self.plan(how, since, at)
            if not plan.priced:
                rating.unmatched.append(event)
                continue
            event_id, _, workspace_id, key_id, organisation_id = event[:5]
            denominator, currency = plan.denominator, plan.currency
            exact = cost = 0
            for quantity, price, line in zip(event[9:], plan.prices, plan.lines, strict=True):
                if quantity:
                    before = cost
                    exact += quantity * price
                    cost, rest = divmod(exact, denominator)
                    rest += rest
                    if rest > denominator or (rest == denominator and cost & 1):
                        cost += 1
                    if line is not None:
                        append(
                            RatedUsage(
                                event_id,
                                organisation_id,
                                workspace_id,
                                key_id,
                                at,
                                line[5],
                                line,
                                quantity,
                                cost - before,
                                currency,
                            )
                        )
            nano_of[event_id] = cost
        return rating

    def between(self, at: datetime) -> tuple[datetime, datetime]:
        """From when until when prices are what they are at that time."""
        since, until = _BEGINNING, _END
        for change in self._changes:
            if change <= at:
                since = change
            else:
                until = change
                break
        return since, until

    def plan(self, how: tuple[str, ...], since: datetime, at: datetime) -> Plan:
        """Prices of `how` (`UsedTokens` from `organisation_id` to `zone`) at that time; they are so since `since`."""
        known = self._plans.get((how, since))
        if known is None:
            # Customers of the same lists and currencies have the same prices: there are far fewer of these.
            customer = self._customer_at(how[0], at)
            lists = self._book.chain(how[0], customer.plan, at)
            alike = (lists, *customer[2:], *how[1:], since)
            if alike not in self._alike:
                self._alike[alike] = self._resolved(customer, how, at)
            known = self._plans[(how, since)] = self._alike[alike]
        return known

    def _resolved(self, customer: Customer, how: tuple[str, ...], at: datetime) -> Plan:
        _, model_id, endpoint, tier, zone = how
        customer = paying(self._book, customer, model_id, at)
        found = token_prices(self._book, customer, model_id, (endpoint, tier, zone), at)
        if found is None:
            return Plan(1, (0, 0, 0), (None, None, None), "", False)
        rates = found.rates
        lines = tuple(
            None if price is None else LineKey(model_id, token_class, *placed(tier, zone), priced_id(price), 0)
            for token_class, price in zip(found.classes, found.prices, strict=True)
        )
        prices = (rates.input_nano_per_million, rates.cached_nano_per_million, rates.output_nano_per_million)
        return Plan(rates.per, prices, (lines[0], lines[1], lines[2]), rates.currency, True)


def billable(rating: Rating, events: Iterable[UsedTokens]) -> Rating:
    """The same, but what costs more than any request can (`MOST_REQUEST_NANO`) is unmatched until somebody corrects it.

    An engine that counts nonsense must not stop the rating of all others, nor fill a sum of 64 bits.
    """
    absurd = {name for name, nano in rating.nano_of.items() if nano > MOST_REQUEST_NANO}
    if not absurd:
        return rating
    return Rating(
        [each for each in rating.usage if each.event_id not in absurd],
        {name: nano for name, nano in rating.nano_of.items() if name not in absurd},
        [*rating.unmatched, *(each for each in events if each.event_id in absurd)],
    )


def buckets_of(usage: Iterable[RatedUsage]) -> dict[BucketKey, Sum]:
    """Rated usage summed by key, hour and line; the sum of all buckets is the sum of all usage."""
    sums: dict[tuple[object, ...], list[int]] = {}
    since = until = _NEVER
    for each in usage:
        at = each.occurred_at
        if not since <= at < until:
            since = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            until = since + _HOUR
        key = (each.organisation_id, each.workspace_id, each.key_id, since, each.currency, each.line)
        known = sums.get(key)
        if known is None:
            sums[key] = [1, each.quantity, each.nano]
        else:
            known[0] += 1
            known[1] += each.quantity
            known[2] += each.nano
    return {BucketKey(*key): Sum(*amounts) for key, amounts in sums.items()}  # type: ignore[arg-type]  # as put in


def added(sums: Iterable[Sum]) -> Sum:
    """The sum of sums."""
    parts = list(sums)
    return Sum(*(sum(part[index] for part in parts) for index in range(3)))


def tier_prices(rates: Mapping[str, Rate], rate_id: str) -> tuple[Rate, list[Fraction], list[int]]:
    """The rate of a `rate_id`, and by tier of volume what one unit costs in nano-units, and above how many units.

    Raises `KeyError` for a rate that is not among `rates`.
    """
    name, _, factor = rate_id.partition("*")
    rate, times = rates[name], Fraction(factor or 1)
    own = 0 if rate.nano is None else rate.nano
    steps = [(0, own), *((step.above, step.nano) for step in rate.steps)]
    return rate, [Fraction(nano, rate.per) * times for _, nano in steps], [start for start, _ in steps]


_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_NEVER = _END
