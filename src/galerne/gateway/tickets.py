"""What waits in a model's queue, and how its work is counted."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["INPUT_TOKEN_WORK", "OUTPUT_TOKEN_WORK", "TIERS", "Ticket", "Tier", "work"]

Tier = Literal["priority", "standard", "batch"]
TIERS: tuple[Tier, ...] = ("priority", "standard", "batch")
INPUT_TOKEN_WORK = 1
OUTPUT_TOKEN_WORK = 2


def work(input_tokens: int, output_tokens: int) -> int:
    """What a request costs an engine: a token read counts 1, a token written 2, as in Sheng et al. (OSDI 2024)."""
    return INPUT_TOKEN_WORK * input_tokens + OUTPUT_TOKEN_WORK * output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A request's place in the queue.

    `tenant` is the organisation or workspace that the key was authenticated for. It must never come from anything that
    a caller wrote (a header, `user`, a model's name): whoever may choose a name has as many shares as names.
    `weight` is the plan's (at least 1; 3 gets three times the work of 1), `work` the estimate, counted as by `work()`.
    Times are of the monotonic clock; at `deadline_s` the request is no longer worth starting.
    """

    id: str
    tenant: str
    weight: int
    tier: Tier
    work: int
    arrived_s: float
    deadline_s: float
