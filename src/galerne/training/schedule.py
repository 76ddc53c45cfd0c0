"""How far a run is and what share of the learning rate that means. Pure: knows no clock and no optimiser."""

import math

from galerne.training.recipe import Budget, Schedule

__all__ = ["progress_share", "rate_share"]


def progress_share(budget: Budget, *, tokens: int, elapsed_s: float) -> float:
    """How much of the budget is spent, 0 to 1: the larger of the shares of tokens and of time."""
    shares = [0.0]
    if budget.tokens is not None:
        shares.append(tokens / budget.tokens)
    if budget.minutes is not None:
        shares.append(elapsed_s / (budget.minutes * 60))
    return min(1.0, max(shares))


def rate_share(schedule: Schedule, progress: float) -> float:
    """The share of the full learning rate at `progress` (0 to 1).

    Linear warm-up, then either warm-up, stable, decay (Hu et al., 2024, MiniCPM) with a linear decay, or a cosine.
    """
    if progress < schedule.warmup:
        return max(progress, 1e-3) / schedule.warmup
    if schedule.shape == "cosine":
        done = (progress - schedule.warmup) / max(1e-9, 1 - schedule.warmup)
        return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2
    left = 1 - progress
    if left >= schedule.decay:
        return 1.0
    return schedule.floor + (1 - schedule.floor) * left / schedule.decay
