"""What tokens cost: integers only, rounded once per request, and an upper bound before any is made. Pure.

Prices are nano-units of a currency for 1,000,000 tokens, or for so many more that a modified price is an integer too,
so that the price of one token may lie below a nano-unit and still be exact. Modifiers are parts per million.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from galerne.kernel import invariant
from galerne.ledger import half_even

TokenClass = Literal[
    "input",
    "cached",
    "output",
    "reasoning",
    "embeddings",
    "pages",
    "audio_seconds",
    "training_tokens",
    "stored_mib_hours",
    "replica_seconds",
    "reserved_throughput",
]
"""What is counted and priced: tokens of a class, pages, seconds of audio, MiB-hours stored, seconds of a replica,
hours of a unit of reserved throughput. Quantities are integers.
"""
ServiceTier = Literal["priority", "standard", "flex", "batch"]

PPM = 1_000_000
"""A modifier that changes nothing, and the number of tokens that a price is for."""

TIER_MODIFIERS_PPM: Mapping[ServiceTier, int] = MappingProxyType(
    {"priority": 1_750_000, "standard": PPM, "flex": 500_000, "batch": 500_000}
)
"""What a tier does to a price, by default."""

HIGHEST_NANO_PER_MILLION = 10**15
"""A million of a currency for a million tokens: above it a price is a slip, and sums could outgrow 64 bits."""


HIGHEST_FACTOR = 1000
"""By how much modifiers together may raise a price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one model's tokens cost from `effective_from` on: nano-units of `currency` for `per` tokens of a class.

    Classes are disjoint: a prompt's tokens were either computed (`input`) or found in a cache (`cached`). `per` is
    1,000,000, or more where modifiers are in the prices already.
    """

    model_id: str
    currency: str
    effective_from: datetime
    input_nano_per_million: int
    cached_nano_per_million: int
    output_nano_per_million: int
    per: int = PPM

    def __post_init__(self) -> None:
        prices = (self.input_nano_per_million, self.cached_nano_per_million, self.output_nano_per_million)
        highest = HIGHEST_NANO_PER_MILLION * HIGHEST_FACTOR * self.per // PPM
        invariant(self.per > 0 and all(0 <= price <= highest for price in prices), "a price is out of bounds")


def cost_nano(rates: Rates, input_tokens: int, cached_tokens: int, output_tokens: int, modifier_ppm: int = PPM) -> int:
    """What a request with these tokens costs, in nano-units of `rates.currency`; rounded once, half to even."""
    invariant(min(input_tokens, cached_tokens, output_tokens, modifier_ppm) >= 0, "a cost from a negative quantity")
    exact = (
        input_tokens * rates.input_nano_per_million
        + cached_tokens * rates.cached_nano_per_million
        + output_tokens * rates.output_nano_per_million
    ) * modifier_ppm
    return half_even(exact, rates.per * PPM)


def most_nano(rates: Rates, prompt_tokens_bound: int, output_tokens_bound: int, modifier_ppm: int = PPM) -> int:
    """The most that a request can cost whose prompt and answer stay within the bounds, at most at that modifier.

    No split of the prompt into computed and cached tokens costs more, whichever of the two is dearer.
    """
    invariant(min(prompt_tokens_bound, output_tokens_bound, modifier_ppm) >= 0, "a bound is negative")
    dearer = max(rates.input_nano_per_million, rates.cached_nano_per_million)
    exact = (prompt_tokens_bound * dearer + output_tokens_bound * rates.output_nano_per_million) * modifier_ppm
    return -(-exact // (rates.per * PPM))
