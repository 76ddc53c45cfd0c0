"""Wire types of quotes, price changes and rating: money and factors are decimals in strings."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.price_book import DEFAULT_LIST, Match, ModifierKind
from galerne.billing.price_changes import NewModifier, NewRate, PriceChange
from galerne.billing.prices import decimal_of, nano_of
from galerne.billing.pricing import ServiceTier, TokenClass
from galerne.billing.quotes import Quote, QuoteAsk, quote_line_fields
from galerne.billing.rating_revisions import Counts
from galerne.billing.rerating import Rerating, ReratingRun
from galerne.billing.volume_tiers import Step, VolumeMode
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


class RerateIn(_Strict):
    """Prices that shall have counted from when they say; with the digest of the report they are applied."""

    prices: PriceChangeIn
    digest: Text | None = None
    period: Text | None = Field(None, description="Show one month's use only, such as 2026-11.")
    organization_id: Text | None = Field(None, description="Show one organisation's use only.")


class ReratingList(BaseModel):
    """Re-ratings that were begun, newest first."""

    object: Literal["list"]
    data: list[dict[str, Any]]


class CorrectionIn(_Strict):
    """What an event shall count as, or as nothing if no tokens are given, and why."""

    event: Text
    reason: Text
    input_tokens: Quantity | None = None
    cached_tokens: Quantity | None = None
    output_tokens: Quantity | None = None

    def counts(self) -> Counts | None:
        """The tokens, all or none."""
        given = (self.input_tokens, self.cached_tokens, self.output_tokens)
        if given == (None, None, None):
            return None
        if None in given:
            raise BadRequest("Give all three counts of tokens, or none to void the event.", param="input_tokens")
        return Counts(*(each or 0 for each in given))


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


class WaitingOut(BaseModel):
    """Usage of one model that has no price."""

    model: str
    events: int
    since: datetime


class RatingOut(BaseModel):
    """How many events are in each state, and the queue of those without a price."""

    object: Literal["rating"]
    events: dict[str, int]
    unmatched: list[WaitingOut]


def quote_fields(model: str, found: Quote) -> dict[str, Any]:
    """The fields of `QuoteOut` from a quote."""
    lines = list(map(quote_line_fields, found.lines))
    totals = {"expected": decimal_of(found.expected_nano), "most": decimal_of(found.most_nano)}
    return {"object": "price.quote", "model": model, "currency": found.currency, "lines": lines, **totals}


def rerating_fields(report: Rerating, *, applied: bool) -> dict[str, Any]:
    """A re-rating's report as JSON shows it: each line before and after, and what to agree to."""
    rows = [
        {name: value for name, value in asdict(each).items() if not name.endswith("_nano")}
        | {"before": decimal_of(each.before_nano), "after": decimal_of(each.after_nano)}
        | {"difference": ("-" if each.difference_nano < 0 else "") + decimal_of(abs(each.difference_nano))}
        for each in report.differences
    ]
    # What was looked at in part cannot be agreed to: prices are one for all.
    head = {"object": "rating.report", "applied": applied, "digest": report.digest if report.is_whole else None}
    return head | {"events": report.events, "changed": report.changed, "differences": rows}


def run_fields(run: ReratingRun) -> dict[str, Any]:
    """A re-rating that was begun, as JSON shows it."""
    return {"object": "rating.rerating", **asdict(run)}


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
