"""Prices as people write them: every decimal of at most nine digits after the point, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import Match, NewRate, NewRates, PriceChange, decimal_of, nano_of
from galerne.billing.prices.changes import check_change, worked_out
from galerne.billing.prices.decimals import begin_of, check_new_rates
from galerne.billing.prices.pricing import HIGHEST_NANO_PER_MILLION
from galerne.kernel import BadRequest, Ids

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "nano"),
    [
        ("0", 0),
        ("0.5", 500_000_000),
        ("1.500", 1_500_000_000),
        ("0.000000001", 1),
        ("0.0000000010", 1),
        ("0012", 12_000_000_000),
        ("1000000", 10**15),
        ("-0.5", -500_000_000),
    ],
)
def test_a_decimal_is_read_exactly(written: str, nano: int) -> None:
    assert nano_of(written, param="input") == nano


@given(st.integers(0, HIGHEST_NANO_PER_MILLION))
def test_what_is_written_reads_back_the_same(nano: int) -> None:
    written = decimal_of(nano)
    assert nano_of(written, param="input") == nano
    assert "e" not in written.lower()
    assert written == "0" or not written.endswith((".", "0")) or "." not in written


@pytest.mark.parametrize(
    "written",
    ["", "abc", "1e3", "NaN", "inf", "0x1", "1_000", ".5", "5.", "1,5", " 1", "1\n", "+1", "٣", "9" * 31, "--1"],
)
def test_what_is_no_plain_decimal_is_refused_naming_the_field(written: str) -> None:
    with pytest.raises(BadRequest, match="no price") as refusal:
        nano_of(written, param="cached")
    assert refusal.value.param == "cached"


def test_a_price_finer_than_a_nano_is_refused() -> None:
    with pytest.raises(BadRequest, match="at most 9 digits"):
        nano_of("0.0000000001", param="output")


def new(**fields: object) -> NewRates:
    prices = {"input_nano_per_million": 1, "cached_nano_per_million": 1, "output_nano_per_million": 1}
    return NewRates(**{"currency": "EUR", **prices, **fields})  # type: ignore[arg-type]  # the test's own table


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (new(input_nano_per_million=-1), "input"),
        (new(cached_nano_per_million=-1), "cached"),
        (new(output_nano_per_million=HIGHEST_NANO_PER_MILLION + 1), "output"),
        (new(currency="eur"), "currency"),
        (new(currency="EURO"), "currency"),
        (new(currency="EUR\n"), "currency"),
        (new(effective_from=NOW - timedelta(microseconds=1)), "effective_from"),
    ],
)
def test_rates_that_cannot_be_are_refused_naming_the_field(wrong: NewRates, field: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_new_rates(wrong, NOW)
    assert refusal.value.param == field


def test_rates_may_begin_now_or_later_and_be_nothing_at_all() -> None:
    nothing = new(input_nano_per_million=0, cached_nano_per_million=0, output_nano_per_million=0)
    for good in (nothing, new(effective_from=NOW), new(effective_from=NOW + timedelta(days=900))):
        check_new_rates(good, NOW)


@pytest.mark.usefixtures("notice")
@pytest.mark.parametrize(
    ("asked_s", "begins_s"), [(None, 10), (0, 10), (9.9, 10), (10, 10), (10.1, 10.1), (3600, 3600)]
)
def test_nothing_begins_before_every_gateway_knows_it(asked_s: float | None, begins_s: float) -> None:
    asked = None if asked_s is None else NOW + timedelta(seconds=asked_s)
    assert begin_of(asked, NOW) == NOW + timedelta(seconds=begins_s)


@pytest.mark.usefixtures("notice")
def test_two_that_would_begin_together_are_refused_and_the_past_stays_a_re_ratings() -> None:
    def change(*begins_s: float, retroactive: bool = False) -> PriceChange:
        return PriceChange(
            rates=tuple(
                NewRate(
                    match=Match(token_class="input"), currency="EUR", nano=1, effective_from=NOW + timedelta(seconds=s)
                )
                for s in begins_s
            ),
            retroactive=retroactive,
        )

    with pytest.raises(BadRequest, match="nobody could say which"):
        check_change(change(1, 2), NOW)
    check_change(change(1, 11), NOW)
    check_change(change(-5, -4, retroactive=True), NOW)
    (written,) = worked_out(change(-5, retroactive=True), 1, Ids(), NOW).rates
    assert written.effective_from == NOW - timedelta(seconds=5)
