"""Wire types of the price book: prices are decimals in strings, for 1,000,000 tokens; no number ever is a float."""

from dataclasses import asdict
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from galerne.billing.plans import Plan
from galerne.billing.prices.decimals import NewRates, decimal_of, nano_of
from galerne.billing.prices.pricing import Rates
from galerne.kernel.web import Text, UtcMoment


class PriceIn(BaseModel):
    """What 1,000,000 tokens of a model shall cost, as decimals in strings (`"0.5"`), from a time on or from now."""

    model_config = ConfigDict(extra="forbid")

    input: Text
    cached: Text
    output: Text
    currency: Text
    effective_from: UtcMoment | None = None

    def new_rates(self) -> NewRates:
        """The same, as billing takes it; `BadRequest` for what is no price."""
        return NewRates(
            currency=self.currency,
            input_nano_per_million=nano_of(self.input, param="input"),
            cached_nano_per_million=nano_of(self.cached, param="cached"),
            output_nano_per_million=nano_of(self.output, param="output"),
            effective_from=self.effective_from,
        )


class PriceOut(BaseModel):
    """What 1,000,000 tokens of a model cost from `effective_from` on."""

    object: Literal["price"]
    model: str
    currency: str
    input: str
    cached: str
    output: str
    effective_from: datetime


class PriceList(BaseModel):
    """The prices that count, by model."""

    object: Literal["list"]
    data: list[PriceOut]


def price_fields(rates: Rates) -> dict[str, object]:
    """The fields of `PriceOut` from rates."""
    return {
        "object": "price",
        "model": rates.model_id,
        "currency": rates.currency,
        "input": decimal_of(rates.input_nano_per_million),
        "cached": decimal_of(rates.cached_nano_per_million),
        "output": decimal_of(rates.output_nano_per_million),
        "effective_from": rates.effective_from,
    }


def plan_fields(plan: Plan) -> dict[str, object]:
    """A plan as JSON shows it."""
    return {"object": "plan", **asdict(plan)}
