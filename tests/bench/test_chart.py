"""Figures drawn as text."""

import pytest
from bench.chart import chart


def test_what_rises_is_drawn_from_the_lower_left_to_the_upper_right() -> None:
    assert chart([0, 1, 2, 3], width=4, height=4).splitlines() == [
        "     3.0 ···●",
        "     2.0 ··●·",
        "     1.0 ·●··",
        "     0.0 ●···",
    ]


def test_what_hardly_moves_looks_flat() -> None:
    lines = chart([100.0, 100.02, 100.01, 100.0], width=4, height=4).splitlines()
    assert lines[-1] == "   100.0 ●●●●"
    assert all("●" not in line for line in lines[:-1])


def test_many_samples_are_drawn_as_their_means() -> None:
    first, *_, last = chart([0.0] * 500 + [2.0, 4.0] * 250, width=2, height=3).splitlines()
    assert (first, last) == ("     3.0 ·●", "     0.0 ●·")


def test_there_must_be_something_to_draw() -> None:
    with pytest.raises(ValueError, match="nothing"):
        chart([])
