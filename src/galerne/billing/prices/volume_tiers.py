"""Prices that change with a period's volume: graduated (each unit at its step's price) or volume (all at the last's).

Pure. A step is known by its index: 0 is the rate's own price, from the first unit on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from galerne.kernel import invariant
from galerne.ledger import half_even

VolumeMode = Literal["graduated", "volume"]


@dataclass(frozen=True, slots=True)
class Step:
    """From beyond `above` units in the period on, `nano` for as many units as the rate's price is for."""

    above: int
    nano: int


def tier_quantities(starts: Sequence[int], mode: VolumeMode | None, quantities: Sequence[int]) -> list[list[int]]:
    """How much of each quantity lies on each tier, when they count together and in this order.

    Tier `i` counts above `starts[i]` units; `starts[0]` is 0.
    """
    invariant(min(quantities, default=0) >= 0 and starts[0] == 0, "tiers begin at the first unit")
    if mode == "volume":
        whole = sum(quantities)
        reached = max(index for index, start in enumerate(starts) if start == 0 or whole > start)
        return [[quantity if index == reached else 0 for index in range(len(starts))] for quantity in quantities]
    ends = [*starts[1:], sum(quantities)]
    shares: list[list[int]] = []
    begin = 0
    for quantity in quantities:
        end = begin + quantity
        shares.append([max(0, min(end, last) - max(begin, first)) for first, last in zip(starts, ends, strict=True)])
        begin = end
    return shares


def amount_nano(quantity: int, price: Fraction) -> int:
    """What so many units cost at a price for one: rounded once, half to even; a negative quantity is a credit."""
    return half_even(quantity * price.numerator, price.denominator)


def steps_problem(mode: VolumeMode | None, steps: Sequence[Step]) -> str | None:
    """Why these steps cannot be, or None."""
    if bool(steps) != (mode is not None):
        return "Steps need a mode, graduated or volume, and a mode needs steps."
    if any(step.nano < 0 or step.above <= 0 for step in steps):
        return "A step's price cannot be negative, and it begins above the first unit."
    starts = [step.above for step in steps]
    return None if starts == sorted(set(starts)) else "Each step begins above the one before it."
