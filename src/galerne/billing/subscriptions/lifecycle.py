"""A subscription as a state machine: what happened makes the state, and time alone makes some things happen. Pure.

The state is a fold of the events, and nothing else is stored. The facts are orthogonal (a trial, a pause, unpaid
invoices, a planned end); the status is read off them, so that no combination is a dead end.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from galerne.billing.billing_calendar import period_at
from galerne.billing.charges import Period
from galerne.billing.subscriptions.offers import Item
from galerne.kernel import invariant

Status = Literal["trialing", "active", "past_due", "paused", "canceled", "ended"]
WhenUnpaid = Literal["downgrade", "suspend"]
EventKind = Literal[
    "started",
    "trial_ended",
    "renewed",
    "changed",
    "change_scheduled",
    "change_withdrawn",
    "paused",
    "resumed",
    "cancel_scheduled",
    "cancel_withdrawn",
    "payment_failed",
    "payment_received",
    "suspended",
    "ended",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dunning:
    """When an unpaid invoice is tried again, counted from its first failure, and when patience ends."""

    retry_days: tuple[int, ...] = (1, 3, 5, 7)
    grace_days: int = 14


DUNNING = Dunning()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a subscription, at a whole second.

    `item` is what is had from then on, or shall be (`change_scheduled`); `until` a trial's end. `credit` says of an
    `ended` whether what was paid in advance is credited.
    """

    kind: EventKind
    at: datetime
    item: Item | None = None
    until: datetime | None = None
    time_zone: str | None = None
    when_unpaid: WhenUnpaid | None = None
    invoice_id: str | None = None
    credit: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaid:
    """An invoice that could not be collected: since when, and how often it was tried."""

    invoice_id: str
    since: datetime
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What is so after `seq` events. `period` is the billing period, or the trial; all times are UTC."""

    id: str
    organisation_id: str
    time_zone: str
    when_unpaid: WhenUnpaid
    item: Item
    anchor: datetime
    period: Period
    seq: int
    at: datetime
    trialing: bool = False
    pending: Item | None = None
    paused: bool = False
    suspended: bool = False
    canceling: bool = False
    unpaid: tuple[Unpaid, ...] = ()
    ended_at: datetime | None = None

    @property
    def status(self) -> Status:
        """Where it stands; of several truths the gravest."""
        if self.ended_at is not None:
            return "ended"
        if self.paused or self.suspended:
            return "paused"
        if self.unpaid:
            return "past_due"
        if self.canceling:
            return "canceled"
        return "trialing" if self.trialing else "active"

    @property
    def serves(self) -> bool:
        """Whether its subscriber gets what the plan offers: until it ends, save while it is paused or suspended."""
        return self.status not in ("paused", "ended")

    @property
    def price_nano(self) -> int:
        """What a whole interval costs as things stand: nothing in a trial, a pause, or after the end."""
        return self.item.price_nano if self.serves and not self.trialing else 0

    @property
    def gives_up_at(self) -> datetime | None:
        """When patience with the oldest unpaid invoice ends, unless it has ended."""
        if not self.unpaid or self.suspended:
            return None
        return min(each.since for each in self.unpaid) + timedelta(days=DUNNING.grace_days)

    def retry_at(self, invoice_id: str) -> datetime | None:
        """When whoever collects is to try an unpaid invoice again; None when not any more."""
        found = next((each for each in self.unpaid if each.invoice_id == invoice_id), None)
        if found is None or found.attempts > len(DUNNING.retry_days) or self.ended_at is not None:
            return None
        return found.since + timedelta(days=DUNNING.retry_days[found.attempts - 1])


def begun(subscription_id: str, organisation_id: str, event: Event) -> Subscription:
    """The subscription that a `started` event makes."""
    invariant(event.kind == "started" and event.item is not None, "a subscription begins with its start")
    item = event.item
    zone = event.time_zone or "UTC"
    trial = event.until is not None
    period = Period(event.at, event.until) if event.until else period_at(event.at, zone, item.interval, event.at)  # type: ignore[union-attr]  # the invariant above
    return Subscription(
        id=subscription_id,
        organisation_id=organisation_id,
        time_zone=zone,
        when_unpaid=event.when_unpaid or "downgrade",
        item=item,  # type: ignore[arg-type]  # the invariant above
        anchor=event.at,
        period=period,
        seq=1,
        at=event.at,
        trialing=trial,
    )


def after(subscription: Subscription, event: Event) -> Subscription:
    """The subscription after one more event, which must not lie before the last one."""
    invariant(event.at >= subscription.at, "a subscription's events are in the order of time")
    invariant(subscription.ended_at is None or event.kind.startswith("payment"), "nothing happens after the end")
    moved = _MOVES[event.kind](subscription, event)
    return replace(moved, seq=subscription.seq + 1, at=event.at)


def folded(subscription_id: str, organisation_id: str, events: Iterable[Event]) -> Subscription:
    """What all its events, oldest first, make of a subscription."""
    rest = iter(events)
    state = begun(subscription_id, organisation_id, next(rest))
    for event in rest:
        state = after(state, event)
    return state


def next_due(state: Subscription) -> Event | None:
    """What will happen by itself first; None after the end."""
    if state.ended_at is not None:
        return None
    end = state.period.end
    kind: EventKind = "ended" if state.canceling else "trial_ended" if state.trialing else "renewed"
    by_period = Event(kind=kind, at=end, item=None if kind == "ended" else state.pending)
    gives_up_at = state.gives_up_at
    if gives_up_at is None or gives_up_at > end:
        return by_period
    at = max(gives_up_at, state.at)
    return Event(kind="suspended" if state.when_unpaid == "suspend" else "ended", at=at)


def due_events(state: Subscription, now: datetime) -> tuple[list[Event], Subscription]:
    """What has happened by itself until `now`, each at its own time whenever this is asked, and the state after."""
    happened: list[Event] = []
    while (event := next_due(state)) is not None and event.at <= now:
        invariant(len(happened) < 10_000, f"subscription {state.id} does not come to rest")
        happened.append(event)
        state = after(state, event)
    return happened, state


def _renewed(state: Subscription, event: Event) -> Subscription:
    item = event.item or state.item
    if state.trialing or item.interval != state.item.interval:
        state = replace(state, anchor=event.at)
    period = period_at(state.anchor, state.time_zone, item.interval, event.at)
    return replace(state, item=item, pending=None, trialing=False, period=period)


def _changed(state: Subscription, event: Event) -> Subscription:
    item = event.item or state.item
    if item.interval != state.item.interval and not state.trialing:
        period = period_at(event.at, state.time_zone, item.interval, event.at)
        state = replace(state, anchor=event.at, period=period)
    return replace(state, item=item, pending=None)


def _failed(state: Subscription, event: Event) -> Subscription:
    known = {each.invoice_id: each for each in state.unpaid}
    name = event.invoice_id or ""
    before = known.get(name)
    known[name] = (
        replace(before, attempts=before.attempts + 1) if before else Unpaid(invoice_id=name, since=event.at, attempts=1)
    )
    return replace(state, unpaid=tuple(known.values()))


def _received(state: Subscription, event: Event) -> Subscription:
    unpaid = tuple(each for each in state.unpaid if each.invoice_id != event.invoice_id)
    return replace(state, unpaid=unpaid, suspended=state.suspended and bool(unpaid))


_MOVES: dict[EventKind, Callable[[Subscription, Event], Subscription]] = {
    "trial_ended": _renewed,
    "renewed": _renewed,
    "changed": _changed,
    "change_scheduled": lambda state, event: replace(state, pending=event.item),
    "change_withdrawn": lambda state, _: replace(state, pending=None),
    "paused": lambda state, _: replace(state, paused=True),
    "resumed": lambda state, _: replace(state, paused=False),
    "cancel_scheduled": lambda state, _: replace(state, canceling=True),
    "cancel_withdrawn": lambda state, _: replace(state, canceling=False),
    "payment_failed": _failed,
    "payment_received": _received,
    "suspended": lambda state, _: replace(state, suspended=True),
    "ended": lambda state, event: replace(state, ended_at=event.at, pending=None),
}
