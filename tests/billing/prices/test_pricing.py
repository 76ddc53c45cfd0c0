"""What tokens cost: exact, rounded once, and never above what was reserved."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import PPM, TIER_MODIFIERS_PPM, Rates, cost_nano, most_nano
from galerne.billing.prices.pricing import HIGHEST_FACTOR, HIGHEST_NANO_PER_MILLION
from galerne.kernel import InvariantViolated

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
prices = st.integers(0, HIGHEST_NANO_PER_MILLION) | st.integers(0, 3_000_000)
tokens = st.integers(0, 2**31)
modifiers = st.sampled_from(sorted(TIER_MODIFIERS_PPM.values())) | st.integers(0, 10 * PPM)


def rates(input_: int, cached: int, output: int) -> Rates:
    return Rates(
        model_id="m",
        currency="EUR",
        effective_from=NOW,
        input_nano_per_million=input_,
        cached_nano_per_million=cached,
        output_nano_per_million=output,
    )


all_rates = st.builds(rates, prices, prices, prices)


@pytest.mark.parametrize(
    ("counts", "modifier_ppm", "expected"),
    [
        ((1_000_000, 0, 0), PPM, 2_000_000_000),
        ((1, 0, 0), PPM, 2_000),
        ((0, 1, 0), PPM, 200),
        ((0, 0, 1), PPM, 6_000),
        ((10, 20, 30), PPM, 10 * 2_000 + 20 * 200 + 30 * 6_000),
        ((1, 0, 0), TIER_MODIFIERS_PPM["priority"], 3_500),
        ((1, 0, 0), TIER_MODIFIERS_PPM["flex"], 1_000),
        ((1, 0, 0), TIER_MODIFIERS_PPM["batch"], 1_000),
        ((0, 0, 0), TIER_MODIFIERS_PPM["priority"], 0),
    ],
)
def test_a_request_costs_its_tokens_at_their_classes_prices(
    counts: tuple[int, int, int], modifier_ppm: int, expected: int
) -> None:
    two_euros = rates(2_000_000_000, 200_000_000, 6_000_000_000)
    assert cost_nano(two_euros, *counts, modifier_ppm) == expected


def test_tokens_that_cost_less_than_a_nano_add_up_before_they_are_rounded() -> None:
    tenth = rates(100_000, 0, 0)
    assert [cost_nano(tenth, count, 0, 0) for count in (1, 4, 5, 6, 10, 15, 25, 1000)] == [0, 0, 0, 1, 1, 2, 2, 100]


@given(all_rates, tokens, tokens, tokens, modifiers)
def test_the_cost_is_the_exact_one_rounded_half_to_even(
    each: Rates, input_tokens: int, cached_tokens: int, output_tokens: int, modifier_ppm: int
) -> None:
    exact = (
        Fraction(
            input_tokens * each.input_nano_per_million
            + cached_tokens * each.cached_nano_per_million
            + output_tokens * each.output_nano_per_million,
            PPM,
        )
        * modifier_ppm
        / PPM
    )
    with localcontext(prec=60):
        decimal = Decimal(exact.numerator) / Decimal(exact.denominator)
        expected = int(decimal.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    cost = cost_nano(each, input_tokens, cached_tokens, output_tokens, modifier_ppm)
    assert cost == expected == round(exact)
    assert type(cost) is int


@given(st.data(), all_rates, tokens, tokens, modifiers)
def test_no_request_within_the_bounds_costs_more_than_the_most(
    data: st.DataObject, each: Rates, prompt_bound: int, output_bound: int, modifier_ppm: int
) -> None:
    prompt = data.draw(st.integers(0, prompt_bound))
    cached = data.draw(st.integers(0, prompt))
    output = data.draw(st.integers(0, output_bound))
    lower_modifier = data.draw(st.integers(0, modifier_ppm))
    cost = cost_nano(each, prompt - cached, cached, output, lower_modifier)
    assert cost <= most_nano(each, prompt_bound, output_bound, modifier_ppm)


@given(all_rates, tokens, tokens, modifiers)
def test_the_most_is_no_more_than_what_the_dearest_request_costs_and_one_nano(
    each: Rates, prompt: int, output: int, modifier_ppm: int
) -> None:
    dearest = max(cost_nano(each, prompt, 0, output, modifier_ppm), cost_nano(each, 0, prompt, output, modifier_ppm))
    assert dearest <= most_nano(each, prompt, output, modifier_ppm) <= dearest + 1


def test_what_the_largest_request_costs_at_the_highest_price_fits_into_64_bits() -> None:
    dearest = rates(*[HIGHEST_NANO_PER_MILLION] * 3)
    assert most_nano(dearest, 2**31, 2**31, TIER_MODIFIERS_PPM["priority"]) < 2**63


@pytest.mark.parametrize("wrong", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 0, -1)])
def test_a_negative_quantity_has_no_cost(wrong: tuple[int, ...]) -> None:
    with pytest.raises(InvariantViolated):
        cost_nano(rates(1, 1, 1), *wrong)
    with pytest.raises(InvariantViolated):
        most_nano(rates(1, 1, 1), -1, 0)


@pytest.mark.parametrize("wrong", [-1, HIGHEST_NANO_PER_MILLION * HIGHEST_FACTOR + 1])
def test_rates_out_of_bounds_cannot_be(wrong: int) -> None:
    with pytest.raises(InvariantViolated):
        rates(0, wrong, 0)
