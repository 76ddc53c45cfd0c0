"""Plans: what an organisation's plan entitles it to when it has to wait. Pure."""

from dataclasses import dataclass
from typing import Literal, get_args

from galerne.kernel import invariant

Tier = Literal["priority", "standard", "batch"]

TIERS: tuple[Tier, ...] = get_args(Tier)
"""The tiers in which requests wait, the one served first in front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One plan: within a tier it is served in proportion to `weight`, and `tier` is the best that it may ask for."""

    id: str
    weight: int
    tier: Tier
    description: str

    def __post_init__(self) -> None:
        invariant(self.weight > 0, "a plan's weight is positive")
        invariant(self.tier in TIERS, "a plan's tier is one of the tiers")

    def allows(self, tier: Tier) -> bool:
        """Whether a request of this plan may wait in `tier`: its own, or one served later."""
        return TIERS.index(tier) >= TIERS.index(self.tier)
