"""What a subscription's history costs, line by line: fees in advance, and every change prorated to the second. Pure.

Within one billing period the running total is the integral of the price over time, as an exact fraction. A line is the
difference of two rounded totals, so that the lines of a period add up to its whole, rounded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from galerne.billing.charges import Charge, ChargeKind, Period, rounded, whole_seconds
from galerne.billing.subscriptions.lifecycle import Event, Subscription, after, begun
from galerne.billing.subscriptions.offers import Item

_OPENING = 2  # an event's third line: the first two credit and charge the rest of a period under way


@dataclass(slots=True)
class _Running:
    """A billing period under way: used up to `since`, charged to its end."""

    period: Period
    since: datetime
    price_nano: int
    used: Fraction
    charged_nano: int

    def advance(self, at: datetime) -> int:
        self.used += Fraction(self.price_nano * whole_seconds(self.since, at), self.period.seconds)
        self.since = at
        return rounded(self.used)

    def total_at(self, price_nano: int) -> int:
        return rounded(
            self.used + Fraction(price_nano * whole_seconds(self.since, self.period.end), self.period.seconds)
        )


def charges_of(subscription_id: str, organisation_id: str, events: Sequence[Event]) -> list[Charge]:
    """Every charge that the events, oldest first, have made due, in the order in which they became due."""
    state = begun(subscription_id, organisation_id, events[0])
    running, made = _open(state)
    charges = list(made)
    for event in events[1:]:
        before, state = state, after(state, event)
        if before.price_nano == state.price_nano and before.period == state.period and before.item == state.item:
            continue
        if event.at < before.period.end and (event.kind != "ended" or event.credit):
            price_nano = state.price_nano if state.period == before.period else 0
            charges += _moved(running, before, state, price_nano)
        if state.period != before.period:
            running, made = _open(state)
            charges += made
    return charges


def _open(state: Subscription) -> tuple[_Running, list[Charge]]:
    price_nano = state.price_nano
    running = _Running(state.period, state.period.start, price_nano, Fraction(0), price_nano)
    if price_nano == 0:
        return running, []
    return running, [
        _charge(state, "recurring", state.item, price_nano, (state.period, state.period.seconds), _OPENING)
    ]


def _moved(running: _Running, before: Subscription, state: Subscription, price_nano: int) -> list[Charge]:
    at = state.at
    used_nano = running.advance(at)
    total_nano = running.total_at(price_nano)
    same_plan, same_seats = before.item.plan_id == state.item.plan_id, before.item.seats == state.item.seats
    kind: ChargeKind = "seat" if same_plan and not same_seats else "proration"
    rest = (Period(at, running.period.end), running.period.seconds)
    lines = [
        (before.item, used_nano - running.charged_nano),
        (state.item, total_nano - used_nano),
    ]
    running.price_nano, running.charged_nano = price_nano, total_nano
    return [
        _charge(state, kind, item, amount, rest, number) for number, (item, amount) in enumerate(lines) if amount != 0
    ]


def _charge(
    state: Subscription, kind: ChargeKind, item: Item, amount_nano: int, part: tuple[Period, int], number: int = 0
) -> Charge:
    period, of_seconds = part
    seats = f", {item.seats} seats" if item.per_seat else ""
    whole = period.seconds == of_seconds
    what = "unused time" if amount_nano < 0 else f"one {item.interval}" if whole else f"rest of the {item.interval}"
    return Charge(
        id=f"{state.id}:{state.seq}:{number}",
        kind=kind,
        description=f"Plan {item.plan_id}{seats}: {what}",
        currency=item.currency,
        period=period,
        quantity=-item.seats if amount_nano < 0 else item.seats,
        unit_price_nano=item.fee_nano,
        amount_nano=amount_nano,
        due_at=state.at,
        tax_inclusive=item.tax_inclusive,
        seconds=1 if whole else period.seconds,
        of_seconds=1 if whole else of_seconds,
    )
