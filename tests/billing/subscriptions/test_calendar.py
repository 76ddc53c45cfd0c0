"""Billing periods by the customer's calendar: ends of months, leap days, changes of clocks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import Interval, months_after, period_at, zone_of
from galerne.kernel import BadRequest

ZONES = sorted(available_timezones())


def local(anchor: str, zone: str, months: int) -> str:
    start = datetime.fromisoformat(anchor).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return months_after(start, zone, months).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("anchor", "zone", "months", "expected"),
    [
        ("2026-01-31", "UTC", 1, "2026-02-28 00:00"),
        ("2026-01-31", "UTC", 2, "2026-03-31 00:00"),
        ("2026-01-31", "UTC", 3, "2026-04-30 00:00"),
        ("2026-01-31", "UTC", 12, "2027-01-31 00:00"),
        ("2028-01-31", "UTC", 1, "2028-02-29 00:00"),
        ("2028-02-29", "UTC", 12, "2029-02-28 00:00"),
        ("2028-02-29", "UTC", 48, "2032-02-29 00:00"),
        ("2026-11-30", "UTC", 3, "2027-02-28 00:00"),
        ("2026-03-15T00:00", "Europe/Paris", 1, "2026-04-15 00:00"),  # summer time began: one hour less
        ("2026-02-28T02:30", "Europe/Paris", 1, "2026-03-28 02:30"),
        ("2026-01-29T02:30", "Europe/Paris", 2, "2026-03-29 03:30"),  # there is no 02:30 on that day
        ("2026-09-25T02:30", "Europe/Paris", 1, "2026-10-25 02:30"),  # there are two of them
    ],
)
def test_a_period_ends_at_the_same_time_on_the_same_day_or_the_months_last(
    anchor: str, zone: str, months: int, expected: str
) -> None:
    assert local(anchor, zone, months) == expected


def test_a_month_with_a_change_of_clocks_is_an_hour_shorter_or_longer() -> None:
    paris = ZoneInfo("Europe/Paris")
    march = datetime(2026, 3, 1, tzinfo=paris).astimezone(UTC)
    october = datetime(2026, 10, 1, tzinfo=paris).astimezone(UTC)
    lengths = [period_at(at, "Europe/Paris", "month", at).seconds for at in (march, october)]
    assert lengths == [31 * 86_400 - 3_600, 31 * 86_400 + 3_600]


@given(
    st.integers(1_577_836_800, 2_051_222_400).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    st.sampled_from(ZONES),
    st.sampled_from(["month", "year"]),
    st.timedeltas(timedelta(0), timedelta(days=4000)),
)
def test_every_moment_lies_in_one_period_and_periods_adjoin(
    anchor: datetime, zone: str, interval: Interval, later: timedelta
) -> None:
    at = anchor + later
    period = period_at(anchor, zone, interval, at)
    assert period.holds(at)
    assert period_at(anchor, zone, interval, period.start) == period
    following = period_at(anchor, zone, interval, period.end)
    assert following.start == period.end
    longest = 367 if interval == "year" else 32
    assert timedelta(days=27) < following.end - following.start < timedelta(days=longest)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "/etc/passwd", "a\0b"])
def test_a_zone_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="time zone"):
        zone_of(name)
