"""How fast something grows: a line through samples, and how sure one may be of its slope."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

_GROUPS = 20
_STUDENT_T = 2.101  # two-sided 95 % for the 18 degrees of freedom that 20 groups leave


@dataclass(frozen=True)
class Trend:
    """Growth per second, and half the width of its 95 % confidence interval."""

    slope: float
    uncertainty: float


def trend(times_s: Sequence[float], values: Sequence[float]) -> Trend:
    """The least-squares line through the means of 20 groups of neighbours; ValueError for fewer than 40 samples.

    Neighbouring samples of a process resemble each other; taken one by one they would promise more certainty than there
    is. The means of groups depend on each other much less.
    """
    if len(times_s) < 2 * _GROUPS:
        raise ValueError(f"{len(times_s)} samples are too few for a trend")
    edges = [len(times_s) * group // _GROUPS for group in range(_GROUPS + 1)]
    x, y = ([sum(of[low:high]) / (high - low) for low, high in pairwise(edges)] for of in (times_s, values))
    mean_x, mean_y = sum(x) / _GROUPS, sum(y) / _GROUPS
    spread = sum((each - mean_x) ** 2 for each in x)
    slope = sum((at - mean_x) * (value - mean_y) for at, value in zip(x, y, strict=True)) / spread
    misses = (value - mean_y - slope * (at - mean_x) for at, value in zip(x, y, strict=True))
    error = sqrt(sum(miss**2 for miss in misses) / (_GROUPS - 2) / spread)
    return Trend(slope, _STUDENT_T * error)
