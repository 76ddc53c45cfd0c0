"""The state machine: what time does by itself, what is refused, and that there is always a way on."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.billing.subscriptions import commands
from galerne.billing.subscriptions.lifecycle import Event, due_events, folded
from galerne.kernel import BadRequest, Conflict, GalerneError
from tests.billing.subscriptions.histories import BEGINNINGS, ITEM, START, STEPS, begin, played

DAY = timedelta(days=1)


def test_a_trial_becomes_a_paid_period_anchored_at_its_end() -> None:
    history = begin(ITEM, "UTC", 14, "downgrade", START)
    assert (history.state.status, history.state.price_nano) == ("trialing", 0)
    history.advance(START + 14 * DAY)
    assert (history.state.status, history.state.period.start) == ("active", START + 14 * DAY)


def test_a_subscription_canceled_at_its_periods_end_serves_until_then_and_can_be_kept() -> None:
    history = begin(ITEM, "UTC", 0, "downgrade", START)
    history.ask(START + DAY, "cancel", "period_end", True)
    assert (history.state.status, history.state.serves) == ("canceled", True)
    history.ask(START + 2 * DAY, "withdraw_cancel")
    history.advance(START + 40 * DAY)
    assert history.state.status == "active"
    history.ask(START + 41 * DAY, "cancel", "period_end", True)
    history.advance(START + 100 * DAY)
    assert (history.state.status, history.state.ended_at) == ("ended", datetime.fromisoformat("2026-03-31T09:30Z"))


def test_a_downgrade_for_the_periods_end_waits_for_it() -> None:
    history = begin(ITEM, "UTC", 0, "downgrade", START)
    cheaper = replace(ITEM, plan_id="pro", fee_nano=1)
    history.ask(START + DAY, "change", cheaper, "period_end")
    assert (history.state.item, history.state.pending) == (ITEM, cheaper)
    history.advance(history.state.period.end)
    assert (history.state.item, history.state.pending) == (cheaper, None)


@pytest.mark.parametrize(("when_unpaid", "status"), [("downgrade", "ended"), ("suspend", "paused")])
def test_an_unpaid_invoice_is_tried_by_the_schedule_until_patience_ends(when_unpaid: Any, status: str) -> None:
    history = begin(ITEM, "UTC", 0, when_unpaid, START)
    retries: list[int | None] = []
    for attempt in (0, 1, 3, 5, 7):
        history.ask(START + attempt * DAY, "payment_failed", "a")
        assert (history.state.status, history.state.serves) == ("past_due", True)
        at = history.state.retry_at("a")
        retries.append(None if at is None else (at - START).days)
    assert retries == [1, 3, 5, 7, None]
    history.advance(START + 14 * DAY - timedelta(seconds=1))
    assert history.state.status == "past_due"
    history.advance(START + 14 * DAY)
    assert (history.state.status, history.state.serves) == (status, False)


def test_service_comes_back_with_the_last_payment_that_was_missing() -> None:
    history = begin(ITEM, "UTC", 0, "suspend", START)
    history.ask(START, "payment_failed", "a")
    history.ask(START + DAY, "payment_failed", "b")
    history.advance(START + 14 * DAY)
    for invoice, serves in (("b", False), ("a", True)):
        history.ask(START + 15 * DAY, "payment_received", invoice)
        assert history.state.serves is serves


@pytest.mark.parametrize(
    ("wish", "error", "code"),
    [
        (("change", replace(ITEM, currency="USD"), "now"), BadRequest, "currency_changed"),
        (("set_seats", 0, "now"), BadRequest, "invalid_request"),
        (("set_seats", 100_001, "now"), BadRequest, "invalid_request"),
    ],
)
def test_what_cannot_be_is_refused_with_a_typed_error(
    wish: tuple[Any, ...], error: type[GalerneError], code: str
) -> None:
    state = begin(ITEM, "UTC", 0, "downgrade", START).state
    with pytest.raises(error) as refused:
        getattr(commands, wish[0])(state, *wish[1:], START)
    assert refused.value.code == code


def test_after_its_end_everything_is_refused_but_ending_and_payments() -> None:
    history = begin(ITEM, "UTC", 0, "downgrade", START)
    history.ask(START, "cancel", "now", True)
    for name, *arguments in (
        ("change", ITEM, "now"),
        ("pause",),
        ("resume",),
        ("withdraw_cancel",),
        ("set_seats", 2, "now"),
    ):
        with pytest.raises(Conflict):
            getattr(commands, name)(history.state, *arguments, START)
    assert commands.cancel(history.state, "now", True, START) == []
    assert commands.payment_failed(history.state, "a", START) == []


@settings(max_examples=60)
@given(BEGINNINGS, st.lists(STEPS, max_size=12))
def test_no_history_is_a_dead_end(beginning: tuple[Any, ...], steps: list[Any]) -> None:
    history = played(beginning, steps)
    now = history.state.at
    if history.state.ended_at is not None:
        return
    for invoice in ("a", "b"):
        history.ask(now, "payment_received", invoice)
    history.ask(now, "resume")
    history.ask(now, "withdraw_cancel")
    assert history.state.status in ("active", "trialing")
    history.ask(now, "cancel", "now", True)
    assert history.state.status == "ended"


@settings(max_examples=60)
@given(BEGINNINGS, st.lists(STEPS, max_size=10), st.lists(st.timedeltas(timedelta(0), timedelta(days=800)), max_size=6))
def test_what_time_does_is_the_same_however_often_it_is_asked(
    beginning: tuple[Any, ...], steps: list[Any], looks: list[timedelta]
) -> None:
    history = played(beginning, steps)
    end = history.state.at + timedelta(days=800)
    at_once = due_events(history.state, end)
    state, events = history.state, list[Event]()
    for look in sorted(looks):
        happened, state = due_events(state, history.state.at + look)
        events += happened
    happened, state = due_events(state, end)
    assert ([*events, *happened], state) == at_once
    assert folded("s", "o", history.events) == history.state


@settings(max_examples=60)
@given(BEGINNINGS, st.lists(STEPS, max_size=10))
def test_asking_again_for_what_is_so_changes_nothing(beginning: tuple[Any, ...], steps: list[Any]) -> None:
    history = played(beginning, steps)
    for _wait, wish in steps:
        if wish[0] != "payment_failed":
            history.ask(history.state.at, *wish)
            before = len(history.events)
            history.ask(history.state.at, *wish)
            assert len(history.events) == before
