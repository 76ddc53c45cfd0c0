"""What changes cost: to the second, and to the nano-unit the integral of the price over time."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.billing import Period
from galerne.billing.subscriptions.proration import charges_of
from tests.billing.subscriptions.histories import BEGINNINGS, ITEM, STEPS, History, begin, played

APRIL = datetime(2026, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PRO = replace(ITEM, plan_id="pro", per_seat=False, fee_nano=14_990_000_000)


def lines(history: History) -> list[tuple[str, int]]:
    return [(charge.kind, charge.amount_nano) for charge in charges_of("s", "o", history.events)]


def test_a_period_is_paid_in_advance_and_a_year_at_once() -> None:
    monthly = begin(PRO, "UTC", 0, "downgrade", APRIL)
    monthly.advance(APRIL + 61 * DAY)
    assert lines(monthly) == [("recurring", 14_990_000_000)] * 3
    yearly = begin(replace(PRO, interval="year", fee_nano=149_900_000_000), "UTC", 0, "downgrade", APRIL)
    yearly.advance(APRIL + 61 * DAY)
    assert lines(yearly) == [("recurring", 149_900_000_000)]


def test_an_upgrade_credits_the_rest_of_the_old_plan_and_charges_that_of_the_new() -> None:
    history = begin(PRO, "UTC", 0, "downgrade", APRIL)
    history.ask(APRIL + 10 * DAY, "change", replace(ITEM, fee_nano=30_000_000_000, seats=3), "now")
    assert lines(history)[1:] == [("proration", -9_993_333_333), ("proration", 60_000_000_000)]


def test_a_downgrade_at_once_gives_credit() -> None:
    history = begin(replace(PRO, fee_nano=30_000_000_000), "UTC", 0, "downgrade", APRIL)
    history.ask(APRIL + 15 * DAY, "change", replace(PRO, fee_nano=0), "now")
    assert lines(history)[1:] == [("proration", -15_000_000_000)]


def test_seats_are_charged_and_credited_to_the_second() -> None:
    item = replace(ITEM, fee_nano=30 * 86_400)
    history = begin(item, "UTC", 0, "downgrade", APRIL)
    history.ask(APRIL + timedelta(seconds=1), "set_seats", 5, "now")
    history.ask(APRIL + timedelta(seconds=2), "set_seats", 1, "now")
    amounts = [amount for _, amount in lines(history)]
    assert sum(amounts) == 30 * 86_400 + 4
    assert {kind for kind, _ in lines(history)[1:]} == {"seat"}


def test_a_pause_is_not_paid_for() -> None:
    history = begin(replace(PRO, fee_nano=30), "UTC", 0, "downgrade", APRIL)
    history.ask(APRIL + 10 * DAY, "pause")
    history.ask(APRIL + 20 * DAY, "resume")
    assert [amount for _, amount in lines(history)] == [30, -20, 10]


def test_another_interval_begins_a_period_of_its_own() -> None:
    history = begin(replace(PRO, fee_nano=30), "UTC", 0, "downgrade", APRIL)
    history.ask(APRIL + 10 * DAY, "change", replace(PRO, interval="year", fee_nano=300), "now")
    assert lines(history) == [("recurring", 30), ("proration", -20), ("recurring", 300)]
    assert history.state.period == Period(APRIL + 10 * DAY, datetime(2027, 4, 11, tzinfo=UTC))


def test_a_trial_costs_nothing_and_an_end_at_once_credits_unless_told_not_to() -> None:
    history = begin(PRO, "UTC", 14, "downgrade", APRIL)
    assert lines(history) == []
    for credit, expected in ((True, -7_495_000_000), (False, None)):
        paid = begin(PRO, "UTC", 0, "downgrade", APRIL)
        paid.ask(APRIL + 15 * DAY, "cancel", "now", credit)
        assert [amount for _, amount in lines(paid)[1:]] == ([] if expected is None else [expected])


@settings(max_examples=150)
@given(BEGINNINGS, st.lists(STEPS, max_size=15))
def test_any_history_costs_exactly_the_integral_of_its_price(beginning: tuple[Any, ...], steps: list[Any]) -> None:
    history = played(beginning, steps)
    history.ask(history.state.at + timedelta(days=3, seconds=7), "cancel", "now", True)
    charges = charges_of("s", "o", history.events)
    assert sum(charge.amount_nano for charge in charges) == history.cost_nano()
    for charge in charges:
        exact = charge.quantity * charge.unit_price_nano * charge.seconds / charge.of_seconds
        assert abs(charge.amount_nano - exact) <= 2 + abs(exact) * 1e-12
        assert charge.amount_nano != 0
    assert len({charge.id for charge in charges}) == len(charges)


@settings(max_examples=60)
@given(BEGINNINGS, st.lists(STEPS, max_size=10), st.lists(st.timedeltas(timedelta(0), timedelta(days=900)), max_size=8))
def test_windows_that_adjoin_hold_each_charge_once(
    beginning: tuple[Any, ...], steps: list[Any], cuts: list[timedelta]
) -> None:
    charges = charges_of("s", "o", played(beginning, steps).events)
    start = beginning[-1].replace(microsecond=0)
    bounds = [start, *sorted(start + cut for cut in cuts), start + timedelta(days=2000)]
    periods = [Period(*pair) for pair in itertools.pairwise(bounds)]
    parts = [[charge for charge in charges if period.holds(charge.due_at)] for period in periods]
    assert [charge for part in parts for charge in part] == charges


@settings(max_examples=60)
@given(BEGINNINGS, st.lists(STEPS, max_size=10))
def test_charges_never_change_when_more_happens(beginning: tuple[Any, ...], steps: list[Any]) -> None:
    events = played(beginning, steps).events
    whole = charges_of("s", "o", events)
    for count in range(1, len(events) + 1):
        earlier = charges_of("s", "o", events[:count])
        assert whole[: len(earlier)] == earlier
