"""What an answer says of the cost of its request: what was settled, class by class, with the prices that it was by.

Pure. Money is a decimal in a string, as everywhere on the wire, but for `cost`: under that name clients of other
gateways read a number. Its digits are exact too.
"""

from msgspec import Raw

from galerne.billing import ModelPrices, cost_lines, decimal_of, quote_line_fields
from galerne.gateway.settled import Settled
from galerne.gateway.wire.answer import Face, Fields, TokenCount

__all__ = ["cost_fields", "used_fields"]


def cost_fields(prices: ModelPrices | None, end: Settled) -> Fields:
    """The fields that a request's cost adds to its `usage`; without a price it cost nothing, in no currency."""
    event = end.event
    how = (event.endpoint, event.tier, event.zone)
    found = None if prices is None else prices.token_prices(how, event.started_at)
    counts = (event.input_tokens, event.cached_tokens, event.output_tokens)
    return {
        "cost": Raw(decimal_of(end.cost_nano).encode()),
        "cost_details": {
            "currency": None if found is None else found.rates.currency,
            "cost": decimal_of(end.cost_nano),
            "charged": decimal_of(end.charged_nano),
            "lines": [] if found is None else [quote_line_fields(line) for line in cost_lines(found, counts)],
        },
    }


def used_fields(face: Face, end: Settled, cost: Fields) -> Fields:
    """The `usage` of an answer that broke: what of it was settled, and what that cost."""
    event = end.event
    count = TokenCount(event.input_tokens, event.cached_tokens, event.output_tokens)
    return {**count.usage(face.dialect, face.tier), **cost}
