"""What may be asked of a subscription, and what then happens: pure functions of (state, wish, now).

A state is up to date when it is asked (`due_events`). Each returns the events, none if all is so already, or raises a
typed error that names the way on.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from galerne.billing.billing_calendar import zone_of
from galerne.billing.subscriptions.lifecycle import Event, Subscription, WhenUnpaid
from galerne.billing.subscriptions.offers import Item, check_seats
from galerne.kernel import BadRequest, Conflict

When = Literal["now", "period_end"]


def started(item: Item, time_zone: str, trial_days: int, when_unpaid: WhenUnpaid, now: datetime) -> Event:
    """The beginning of a subscription, with a trial of that many days if any."""
    zone_of(time_zone)
    at = now.replace(microsecond=0)
    until = at + timedelta(days=trial_days) if trial_days else None
    return Event(kind="started", at=at, item=item, until=until, time_zone=time_zone, when_unpaid=when_unpaid)


def change(state: Subscription, item: Item, when: When, now: datetime) -> list[Event]:
    """Another plan, version, interval or number of seats: at once, prorated to the second, or at the period's end.

    A currency never changes (`BadRequest`): what was posted in one is not converted.
    """
    _check_open(state)
    if item.currency != state.item.currency:
        raise BadRequest(
            f"A subscription keeps its currency, {state.item.currency}; end it and begin another.",
            code="currency_changed",
            param="currency",
        )
    if when == "period_end":
        if item == state.item:
            return [] if state.pending is None else [_event("change_withdrawn", state, now)]
        return [] if item == state.pending else [replace(_event("change_scheduled", state, now), item=item)]
    _check_serving(state)
    if item == state.item and state.pending is None:
        return []
    return [replace(_event("changed", state, now), item=item)]


def set_seats(state: Subscription, seats: int, when: When, now: datetime) -> list[Event]:
    """That many seats, at once or from the next period on."""
    check_seats(state.item.plan_id, state.item.per_seat, seats)
    base = state.pending if when == "period_end" and state.pending is not None else state.item
    return change(state, replace(base, seats=seats), when, now)


def withdraw_change(state: Subscription, now: datetime) -> list[Event]:
    """Leave at the period's end as it is."""
    _check_open(state)
    return [] if state.pending is None else [_event("change_withdrawn", state, now)]


def pause(state: Subscription, now: datetime) -> list[Event]:
    """No service and no fee from now on; the rest of what was paid in advance is credited."""
    _check_open(state)
    if state.trialing:
        raise Conflict("A trial cannot be paused; cancel it, it costs nothing.", code="subscription_trialing")
    return [] if state.paused else [_event("paused", state, now)]


def resume(state: Subscription, now: datetime) -> list[Event]:
    """Service and fee again, for the rest of the period that is running."""
    _check_open(state)
    return [_event("resumed", state, now)] if state.paused else []


def cancel(state: Subscription, when: When, credit: bool, now: datetime) -> list[Event]:
    """The end: with the period, or now; `credit` gives back what was paid in advance for the time after now."""
    if state.ended_at is not None:
        return []
    if when == "now":
        return [replace(_event("ended", state, now), credit=credit)]
    return [] if state.canceling else [_event("cancel_scheduled", state, now)]


def withdraw_cancel(state: Subscription, now: datetime) -> list[Event]:
    """Go on after the period's end after all."""
    _check_open(state)
    return [_event("cancel_withdrawn", state, now)] if state.canceling else []


def payment_failed(state: Subscription, invoice_id: str, now: datetime) -> list[Event]:
    """An invoice could not be collected; after the end that changes nothing here."""
    return [] if state.ended_at else [replace(_event("payment_failed", state, now), invoice_id=invoice_id)]


def payment_received(state: Subscription, invoice_id: str, now: datetime) -> list[Event]:
    """An invoice was paid; only one that had failed changes anything."""
    if all(each.invoice_id != invoice_id for each in state.unpaid):
        return []
    return [replace(_event("payment_received", state, now), invoice_id=invoice_id)]


def _event(kind: str, state: Subscription, now: datetime) -> Event:
    # Clocks of two machines differ: what is asked a little before the last event happens with it, never before.
    return Event(kind=kind, at=max(now.replace(microsecond=0), state.at))  # type: ignore[arg-type]  # kinds of ours


def _check_open(state: Subscription) -> None:
    if state.ended_at is not None:
        raise Conflict("This subscription has ended; begin a new one.", code="subscription_ended")


def _check_serving(state: Subscription) -> None:
    if state.suspended:
        raise Conflict("This subscription is suspended until its invoices are paid.", code="subscription_suspended")
    if state.paused:
        raise Conflict("This subscription is paused; resume it first.", code="subscription_paused")
