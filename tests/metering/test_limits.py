"""Which pools a request draws from, which rules can be, and when windows begin and end."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.kernel import BadRequest
from galerne.metering.limit_windows import Window, window_end_ms, window_start_ms
from galerne.metering.limits import LimitRule, LimitSubject, check_rule, pool_specs, rule_id

SUBJECT = LimitSubject(key_id="key-1", workspace_id="ws-1", organisation_id="org-1", plan="team")
RULE = LimitRule(id="r", scope="key", scope_id="key-1", quantity="tokens", window="day", amount=100)
YEAR_2000_MS, YEAR_2100_MS = 946_684_800_000, 4_102_444_800_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        ("day", "2026-11-23T12:34:56.789", "2026-11-23", "2026-11-24"),
        ("day", "2026-11-23T00:00:00", "2026-11-23", "2026-11-24"),
        ("day", "2026-11-23T23:59:59.999", "2026-11-23", "2026-11-24"),
        ("day", "2026-03-29T01:30:00", "2026-03-29", "2026-03-30"),  # Europe's clocks go forward
        ("day", "2026-10-25T01:30:00", "2026-10-25", "2026-10-26"),  # and back
        ("week", "2026-11-23T00:00:00", "2026-11-23", "2026-11-30"),  # a Monday
        ("week", "2026-11-29T23:59:59.999", "2026-11-23", "2026-11-30"),
        ("week", "2027-01-01T10:00:00", "2026-12-28", "2027-01-04"),  # ISO week 53 of 2026
        ("month", "2026-01-31T23:59:59.999", "2026-01-01", "2026-02-01"),
        ("month", "2026-02-28T12:00:00", "2026-02-01", "2026-03-01"),
        ("month", "2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
        ("month", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("month", "2026-04-30T00:00:00", "2026-04-01", "2026-05-01"),
    ],
)
def test_windows_follow_the_calendar_of_utc(window: Window, now: str, start: str, end: str) -> None:
    assert window_start_ms(window, ms(now)) == ms(start)
    assert window_end_ms(window, ms(start)) == ms(end)


def test_five_hours_begin_with_the_first_use_after_the_last_ones() -> None:
    first = ms("2026-11-23T22:30:00")
    assert window_start_ms("5h", first) == first
    assert window_start_ms("5h", ms("2026-11-24T03:29:59.999"), first) == first
    assert window_start_ms("5h", ms("2026-11-24T03:30:00"), first) == ms("2026-11-24T03:30:00")


@given(
    st.sampled_from(["5h", "day", "week", "month"]),
    st.integers(YEAR_2000_MS, YEAR_2100_MS),
    st.integers(YEAR_2000_MS, YEAR_2100_MS),
)
def test_a_window_holds_its_moment_and_never_moves_back(window: Window, now_ms: int, later_ms: int) -> None:
    start_ms = window_start_ms(window, now_ms)
    assert start_ms <= now_ms < window_end_ms(window, start_ms)
    other_ms = window_start_ms(window, later_ms, start_ms)
    assert other_ms >= start_ms
    assert (other_ms == start_ms) == (later_ms < window_end_ms(window, start_ms))


def rule(name: str, scope: Any, scope_id: str, **changes: Any) -> LimitRule:
    return replace(RULE, id=name, scope=scope, scope_id=scope_id, **changes)


def test_a_request_draws_from_every_pool_of_its_subjects_and_its_model() -> None:
    rules = [
        rule("a", "key", "key-1"),
        rule("b", "workspace", "ws-1"),
        rule("c", "organisation", "org-1"),
        rule("d", "plan", "team"),
        rule("e", "model", "brise"),
        rule("f", "key", "key-1", model="brise", quantity="requests", window="5h"),
        rule("x1", "model", "large"),
        rule("x2", "key", "key-1", model="large"),
        rule("x3", "plan", "free"),
        rule("x4", "workspace", "ws-2"),
    ]
    specs = pool_specs(rules, SUBJECT, "brise", (60, 1000))
    assert [spec.id for spec in specs] == [
        "a:key-1",
        "b:ws-1",
        "c:org-1",
        "d:org-1",
        "e:all",
        "f:key-1",
        "rpm:key-1",
        "tpm:key-1",
    ]
    assert [(spec.quantity, spec.window, spec.amount, spec.law) for spec in specs[5:]] == [
        ("requests", "5h", 100, "window"),
        ("requests", "minute", 60, "bucket"),
        ("tokens", "minute", 1000, "bucket"),
    ]


def test_a_plans_rule_gives_each_organisation_a_pool_of_its_own() -> None:
    other = replace(SUBJECT, organisation_id="org-2")
    pools = {pool_specs([rule("d", "plan", "team")], each, "brise", (1, 1))[0].id for each in (SUBJECT, other)}
    assert pools == {"d:org-1", "d:org-2"}


def test_a_keys_own_terms_come_before_the_defaults() -> None:
    specs = pool_specs([], replace(SUBJECT, requests_per_minute=5), "brise", (60, 1000))
    assert [(spec.id, spec.amount) for spec in specs] == [("rpm:key-1", 5), ("tpm:key-1", 1000)]


def test_a_rule_of_the_key_replaces_the_default_but_not_its_own_term() -> None:
    own = rule("r", "key", "key-1", window="minute", amount=9000)
    assert [spec.id for spec in pool_specs([own], SUBJECT, "brise", (60, 1000))] == ["r:key-1", "rpm:key-1"]
    both = pool_specs([own], replace(SUBJECT, tokens_per_minute=7), "brise", (60, 1000))
    assert [spec.id for spec in both] == ["r:key-1", "rpm:key-1", "tpm:key-1"]
    for_one_model = replace(own, model="brise")
    assert len(pool_specs([for_one_model], SUBJECT, "brise", (60, 1000))) == 3


def test_a_rule_keeps_its_id_whatever_its_amount_and_shares_it_with_no_other() -> None:
    assert rule_id(RULE, None, None) == rule_id(replace(RULE, amount=7, id="other"), None, None)
    changes: list[dict[str, Any]] = [
        {},
        {"scope": "workspace"},
        {"scope_id": "key-2"},
        {"model": "brise"},
        {"quantity": "requests"},
        {"window": "week"},
        {"quantity": "nano", "currency": "EUR"},
    ]
    owners = [(None, None), ("org-1", None), ("org-1", "ws-1")]
    assert len({rule_id(replace(RULE, **change), *owner) for change in changes for owner in owners}) == 21


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"quantity": "concurrent"}, "window"),
        ({"window": "none"}, "window"),
        ({"quantity": "nano"}, "currency"),
        ({"currency": "EUR"}, "currency"),
        ({"quantity": "nano", "currency": "euro"}, "currency"),
        ({"quantity": "nano", "currency": "eur"}, "currency"),
        ({"amount": 0}, "amount"),
        ({"amount": 10**18 + 1}, "amount"),
        ({"amount": 10**13 + 1, "window": "minute"}, "amount"),
        ({"scope_id": ""}, "scope_id"),
        ({"scope_id": "x" * 101}, "scope_id"),
        ({"scope": "model", "model": "brise"}, "model"),
        ({"model": ""}, "model"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_the_name_of_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_rule(replace(RULE, **change))
    assert refusal.value.param == field
