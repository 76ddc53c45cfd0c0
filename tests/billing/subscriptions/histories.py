"""Histories of subscriptions, drawn at random, and a naive account of what each must cost."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from galerne.billing import Period
from galerne.billing.subscriptions import commands
from galerne.billing.subscriptions.lifecycle import Event, Subscription, after, begun, due_events
from galerne.billing.subscriptions.offers import Item
from galerne.kernel import GalerneError

START = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
ITEM = Item(
    plan_id="team",
    version=1,
    interval="month",
    currency="EUR",
    fee_nano=14_990_000_001,
    per_seat=True,
    tax_inclusive=False,
)
ITEMS = st.builds(
    replace,
    st.just(ITEM),
    plan_id=st.sampled_from(["pro", "team"]),
    interval=st.sampled_from(["month", "year"]),
    fee_nano=st.integers(0, 10**12),
    seats=st.integers(1, 50),
)
WHEN = st.sampled_from(["now", "period_end"])
STEPS: st.SearchStrategy[Any] = st.tuples(
    st.timedeltas(timedelta(0), timedelta(days=70)),
    st.one_of(
        st.tuples(st.just("change"), ITEMS, WHEN),
        st.tuples(st.just("set_seats"), st.integers(1, 50), WHEN),
        st.tuples(st.sampled_from(["pause", "resume", "withdraw_change", "withdraw_cancel"])),
        st.tuples(st.just("cancel"), st.just("period_end"), st.just(True)),
        st.tuples(st.sampled_from(["payment_failed", "payment_received"]), st.sampled_from(["a", "b"])),
    ),
)
BEGINNINGS = st.tuples(
    ITEMS,
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Pacific/Apia"]),
    st.sampled_from([0, 14]),
    st.sampled_from(["downgrade", "suspend"]),
    st.integers(0, 1100 * 86_400).map(lambda seconds: START + timedelta(seconds=seconds)),
)


@dataclass
class History:
    """What was asked, one thing after another, and every state that it led to."""

    events: list[Event]
    states: list[Subscription] = field(default_factory=list[Subscription])

    @property
    def state(self) -> Subscription:
        return self.states[-1]

    def happen(self, events: list[Event]) -> None:
        for event in events:
            self.events.append(event)
            self.states.append(after(self.state, event))

    def advance(self, now: datetime) -> None:
        self.happen(due_events(self.state, now)[0])

    def ask(self, now: datetime, name: str, *arguments: Any) -> None:
        """What is asked happens, or is refused with a typed error, and then nothing happens."""
        self.advance(now)
        try:
            self.happen(getattr(commands, name)(self.state, *arguments, now))
        except GalerneError:
            return

    def cost_nano(self) -> int:
        """The integral of the price over time, each billing period's rounded once, up to the last event."""
        periods: dict[Period, Fraction] = {}
        for before, next_state in zip(self.states, self.states[1:], strict=False):
            seconds = (next_state.at - before.at) // timedelta(seconds=1)
            part = Fraction(
                before.price_nano * seconds, (before.period.end - before.period.start).total_seconds().__int__()
            )
            periods[before.period] = periods.get(before.period, Fraction(0)) + part
        return sum(map(round, periods.values()))


def begin(*beginning: Any) -> History:
    event = commands.started(*beginning)
    return History([event], [begun("s", "o", event)])


def played(beginning: tuple[Any, ...], steps: list[tuple[timedelta, tuple[Any, ...]]]) -> History:
    """The history in which each step is asked that long after the one before."""
    history, now = begin(*beginning), beginning[-1]
    for wait, wish in steps:
        now += wait
        history.ask(now, *wish)
    return history
