"""Wire types of quotes and price changes: money and factors are decimals in strings."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.prices.book import DEFAULT_LIST, Match, ModifierKind
from galerne.billing.prices.changes import NewModifier, NewRate, PriceChange
from galerne.billing.prices.decimals import decimal_of, nano_of
from galerne.billing.prices.pricing import ServiceTier, TokenClass
from galerne.billing.prices.quotes import Quote, QuoteAsk, quote_line_fields
from galerne.billing.prices.volume_tiers import Step, VolumeMode
from galerne.kernel import BadRequest
from galerne.kernel.web import Text, UtcMoment

Quantity = Annotated[int, Field(ge=0, le=2**40)]
_PPM_DIGITS = 6


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StepIn(_Strict):
    """What each unit above so many in a month costs, for as many as the rate's price is for."""

    above: Quantity
    price: Text


class RateIn(_Strict):
    """A rate: what it is for, and a price as a decimal in a string; null withdraws it."""

    token_class: TokenClass
    currency: Text
    price: Text | None
    model: Text | None = None
    service_tier: ServiceTier | None = None
    zone: Text | None = None
    batch: bool | None = None
    effective_from: UtcMoment | None = None
    volume: VolumeMode | None = None
    steps: list[StepIn] = []


class ModifierIn(_Strict):
    """A factor for a tier or zone by name, or for batch or cached."""

    kind: ModifierKind
    factor: Text
    value: Text = ""
    effective_from: UtcMoment | None = None


class PriceChangeIn(_Strict):
    """Rates and modifiers of one list, written together as a version of the price book."""

    price_list: Text = DEFAULT_LIST
    rates: list[RateIn] = []
    modifiers: list[ModifierIn] = []

    def change(self, *, retroactive: bool = False) -> PriceChange:
        """The same, as billing takes it; `BadRequest` for what is no price or factor."""
        return PriceChange(
            rates=tuple(map(_new_rate, self.rates)),
            modifiers=tuple(map(_new_modifier, self.modifiers)),
            list_id=self.price_list,
            retroactive=retroactive,
        )


class QuoteIn(_Strict):
    """A request that may be made: bounds on its tokens, what of them is expected, and other quantities by class."""

    model: Text
    input_tokens: Quantity = 0
    output_tokens: Quantity = 0
    cached_tokens: Quantity = 0
    expected_output_tokens: Quantity | None = None
    endpoint: Text = "chat.completions"
    service_tier: Literal["standard", "priority", "flex", "batch"] = "standard"
    zone: Text = ""
    currency: Text | None = None
    quantities: dict[TokenClass, Quantity] = {}

    def ask(self) -> QuoteAsk:
        """The same, as billing takes it."""
        fields = self.model_dump(exclude={"model", "service_tier", "currency"})
        return QuoteAsk(model_id=self.model, tier=self.service_tier, **fields)


class QuoteLineOut(BaseModel):
    """What is expected of one class: `price` is for `per` units, `amount` for all of them."""

    token_class: str
    quantity: int
    price: str
    per: int
    rate: str
    amount: str


class QuoteOut(BaseModel):
    """What a request will cost: expected, and at most."""

    object: Literal["price.quote"]
    model: str
    currency: str
    lines: list[QuoteLineOut]
    expected: str
    most: str


class PriceVersionOut(BaseModel):
    """What was written: the version's number, and how much."""

    object: Literal["price.version"]
    version: int
    rates: int
    modifiers: int


def quote_fields(model: str, found: Quote) -> dict[str, Any]:
    """The fields of `QuoteOut` from a quote."""
    lines = list(map(quote_line_fields, found.lines))
    totals = {"expected": decimal_of(found.expected_nano), "most": decimal_of(found.most_nano)}
    return {"object": "price.quote", "model": model, "currency": found.currency, "lines": lines, **totals}


def _new_rate(rate: RateIn) -> NewRate:
    return NewRate(
        match=Match(
            token_class=rate.token_class,
            model_id=rate.model,
            service_tier=rate.service_tier,
            zone=rate.zone,
            batch=rate.batch,
        ),
        currency=rate.currency,
        nano=None if rate.price is None else nano_of(rate.price, param="price"),
        effective_from=rate.effective_from,
        volume=rate.volume,
        steps=tuple(Step(step.above, nano_of(step.price, param="steps")) for step in rate.steps),
    )


def _new_modifier(modifier: ModifierIn) -> NewModifier:
    nano = nano_of(modifier.factor, param="factor")
    if nano % 1000:
        raise BadRequest(f"factor: at most {_PPM_DIGITS} digits after the point.", param="factor")
    ppm = nano // 1000
    return NewModifier(kind=modifier.kind, value=modifier.value, ppm=ppm, effective_from=modifier.effective_from)
