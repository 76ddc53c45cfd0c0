"""Volume: graduated and volume prices, by hand and against counting one unit at a time."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import Step
from galerne.billing.prices.volume_tiers import VolumeMode, amount_nano, steps_problem, tier_quantities

PRICES, STARTS = [Fraction(10), Fraction(8), Fraction(5)], [0, 100, 1000]


def on_tiers(
    prices: list[Fraction], starts: list[int], mode: VolumeMode | None, quantity: int
) -> list[tuple[int, int, int]]:
    (parts,) = tier_quantities(starts, mode, [quantity])
    return [(tier, part, amount_nano(part, prices[tier])) for tier, part in enumerate(parts) if part]


@pytest.mark.parametrize(
    ("mode", "quantity", "lines"),
    [
        (None, 0, []),
        ("graduated", 1, [(0, 1, 10)]),
        ("graduated", 100, [(0, 100, 1000)]),
        ("graduated", 101, [(0, 100, 1000), (1, 1, 8)]),
        ("graduated", 1500, [(0, 100, 1000), (1, 900, 7200), (2, 500, 2500)]),
        ("volume", 0, []),
        ("volume", 100, [(0, 100, 1000)]),
        ("volume", 101, [(1, 101, 808)]),
        ("volume", 1500, [(2, 1500, 7500)]),
    ],
)
def test_golden_lines(mode: VolumeMode | None, quantity: int, lines: list[tuple[int, int, int]]) -> None:
    assert on_tiers(PRICES, STARTS, mode, quantity) == lines


@given(st.integers(0, 300), st.lists(st.tuples(st.integers(1, 40), st.integers(0, 50)), max_size=4))
def test_graduated_lines_are_what_counting_unit_by_unit_gives(quantity: int, steps: list[tuple[int, int]]) -> None:
    starts, prices = [0], [Fraction(7)]
    for width, price in steps:
        starts.append(starts[-1] + width)
        prices.append(Fraction(price))
    lines = on_tiers(prices, starts, "graduated", quantity)
    one_by_one = sum(
        prices[max(i for i, start in enumerate(starts) if start < unit)] for unit in range(1, quantity + 1)
    )
    assert sum(nano for _, _, nano in lines) == one_by_one
    assert sum(part for _, part, _ in lines) == quantity


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        (None, (Step(1, 1),)),
        ("volume", ()),
        ("volume", (Step(0, 1),)),
        ("graduated", (Step(5, -1),)),
        ("graduated", (Step(5, 1), Step(5, 2))),
        ("graduated", (Step(9, 1), Step(5, 2))),
    ],
)
def test_steps_that_cannot_be(mode: str | None, steps: tuple[Step, ...]) -> None:
    assert steps_problem(mode, steps)  # type: ignore[arg-type]  # one of the modes
