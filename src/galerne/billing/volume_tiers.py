"""Prices that change with a period's volume: graduated (each unit at its step's price) or volume (all at the last's).

Pure. A step is known by its index: 0 is the rate's own price, from the first unit on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from galerne.billing.pricing import half_even
from galerne.kernel import invariant

VolumeMode = Literal["graduated", "volume"]


@dataclass(frozen=True, slots=True)
class Step:
    """From beyond `above` units in the period on, `nano` for as many units as the rate's price is for."""

    above: int
    nano: int


class TierLine(NamedTuple):
    """So many units of a period that cost the same: `nano` is quantity times price, rounded once."""

    tier_index: int
    quantity: int
    nano: int


def tier_lines(
    prices: Sequence[Fraction], starts: Sequence[int], mode: VolumeMode | None, quantity: int
) -> list[TierLine]:
    """A period's units on the tiers that they reach, none of them empty; `prices` are nano-units of one unit.

    `prices[i]` counts above `starts[i]` units; `starts[0]` is 0.
    """
    invariant(quantity >= 0 and len(prices) == len(starts) > 0 and starts[0] == 0, "tiers begin at the first unit")
    if mode == "volume":
        index = max(index for index, start in enumerate(starts) if start == 0 or quantity > start)
        return [_line(index, quantity, prices[index])] if quantity else []
    lines: list[TierLine] = []
    for index, price in enumerate(prices):
        end = starts[index + 1] if index + 1 < len(starts) else quantity
        part = min(quantity, end) - starts[index]
        if part > 0:
            lines.append(_line(index, part, price))
    return lines


def steps_problem(mode: VolumeMode | None, steps: Sequence[Step]) -> str | None:
    """Why these steps cannot be, or None."""
    if bool(steps) != (mode is not None):
        return "Steps need a mode, graduated or volume, and a mode needs steps."
    if any(step.nano < 0 or step.above <= 0 for step in steps):
        return "A step's price cannot be negative, and it begins above the first unit."
    starts = [step.above for step in steps]
    return None if starts == sorted(set(starts)) else "Each step begins above the one before it."


def _line(index: int, quantity: int, price: Fraction) -> TierLine:
    return TierLine(index, quantity, half_even(quantity * price.numerator, price.denominator))
