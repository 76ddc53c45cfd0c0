import random

import pytest
from bench.trend import trend


def test_a_straight_line_has_its_slope_and_no_uncertainty() -> None:
    found = trend(range(200), [3 + 0.5 * second for second in range(200)])
    assert found.slope == pytest.approx(0.5)
    assert found.uncertainty == pytest.approx(0, abs=1e-9)


def test_noise_around_a_level_is_not_growth() -> None:
    dice = random.Random(1)
    within = 0
    for _ in range(200):
        found = trend(range(400), [100 + dice.gauss(0, 2) for _ in range(400)])
        within += abs(found.slope) <= found.uncertainty
    assert 180 <= within <= 199  # 95 of 100, by the meaning of the interval


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        trend(range(39), [1.0] * 39)
