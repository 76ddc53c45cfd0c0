"""What a request's tokens cost one customer: the price book's answers for all its classes at once, exact.

The gateway holds and charges by these `Rates`, rating splits by them; both ask here, so they cannot disagree. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from math import lcm
from types import MappingProxyType
from typing import NamedTuple

from galerne.billing.prices.book import Price, PriceBook, Use, conditions_of
from galerne.billing.prices.pricing import PPM, Rates, TokenClass, most_nano

__all__ = ["Customer", "ModelPrices", "TokenPrices", "paying", "token_prices"]

_CLASSES: Mapping[bool, tuple[TokenClass, ...]] = MappingProxyType(
    {False: ("input", "cached", "output"), True: ("embeddings", "cached", "output")}
)
EMBEDDINGS = "embeddings"


class Customer(NamedTuple):
    """Whose prices: its plan, and the currency in which it pays; None for whichever has the newest price.

    `accounts` are the currencies of its prepaid accounts in their order, for `paying` to choose from.
    """

    organisation_id: str
    plan: str
    currency: str | None = None
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Prices of prompt tokens, cached ones and the answer's; `rates` is the same in integers.

    A class that a request cannot use (an embedding has no answer) has None, and costs nothing.
    """

    rates: Rates
    classes: tuple[TokenClass, ...]
    prices: tuple[Price | None, ...]


def token_prices(
    book: PriceBook, customer: Customer, model_id: str, how: tuple[str, str, str], at: datetime
) -> TokenPrices | None:
    """Prices of the tokens of requests to a model; `how` is endpoint, tier and zone. None unless all are priced."""
    chain = book.chain(customer.organisation_id, customer.plan, at)
    currencies = [customer.currency] if customer.currency else book.currencies(chain, model_id, at)
    endpoint, tier, zone = how
    embeds = endpoint == EMBEDDINGS
    for currency in currencies:
        prices = tuple(
            book.price(chain, currency, Use(model_id, each, *placed(tier, zone)), at) for each in _CLASSES[embeds]
        )
        if prices[0] is not None and (embeds or None not in prices):
            begin = max(price.rate.effective_from for price in prices if price is not None)
            return TokenPrices(_rates(model_id, currency, begin, prices), _CLASSES[embeds], prices)
    return None


def paying(book: PriceBook, customer: Customer, model_id: str, at: datetime) -> Customer:
    """The customer in the currency in which it pays for a model: its first account's that has a standard price.

    Without such an account use is counted in whichever currency has a price, and no account is charged.
    """
    if customer.currency is not None or not customer.accounts:
        return customer
    for currency in customer.accounts:
        found = customer._replace(currency=currency, accounts=())
        for endpoint in ("", EMBEDDINGS):
            if token_prices(book, found, model_id, (endpoint, "standard", ""), at) is not None:
                return found
    return customer._replace(accounts=())


class ModelPrices:
    """One customer's prices for one model as the gateway keeps them: asked often, resolved once until one changes."""

    def __init__(self, book: PriceBook, customer: Customer, model_id: str) -> None:
        self._book = book
        self._customer = customer
        self._model_id = model_id
        self._segment = -1
        self._since = datetime.max.replace(tzinfo=UTC)
        self._next_change: datetime | None = None
        self._rates: dict[tuple[str, str, str], Rates | None] = {}
        self._bounds: dict[str, Rates | None] = {}

    def rates(self, endpoint: str, tier: str, zone: str, at: datetime) -> Rates | None:
        """What tokens cost at `at`, in that tier and zone; None for a model without a price."""
        self._turn_to(at)
        how = (endpoint, tier, zone)
        try:
            return self._rates[how]
        except KeyError:
            found = token_prices(self._book, self._customer, self._model_id, how, at)
            self._rates[how] = None if found is None else found.rates
            return self._rates[how]

    def token_prices(self, how: tuple[str, str, str], at: datetime) -> TokenPrices | None:
        """The same with each class's price; `how` is endpoint, tier and zone. Worked out anew each time."""
        return token_prices(self._book, self._customer, self._model_id, how, at)

    def standard(self, at: datetime) -> Rates | None:
        """What tokens cost in the standard tier, wherever nothing is said of the zone."""
        return self.rates("", "standard", "", at) or self.rates(EMBEDDINGS, "standard", "", at)

    def most_nano(self, prompt_tokens: int, output_tokens: int, tier: str, at: datetime) -> int:
        """The most that a request within these bounds can cost in that tier, wherever it is answered."""
        self._turn_to(at)
        if tier not in self._bounds:
            self._bounds[tier] = self._bound(tier, at)
        bound = self._bounds[tier]
        return 0 if bound is None else most_nano(bound, prompt_tokens, output_tokens)

    def unchanged_s(self, at: datetime) -> float:
        """For how many seconds from `at` nothing in the book changes."""
        begins = self._book.next_change(at)
        return math.inf if begins is None else (begins - at).total_seconds()

    def _turn_to(self, at: datetime) -> None:
        # A request that began before the newest change is as rare as a change: forgetting is simple, and never wrong.
        if self._segment >= 0 and self._since <= at and (self._next_change is None or at < self._next_change):
            return
        changes = self._book.changes
        self._segment = self._book.segment(at)
        self._since = changes[self._segment - 1] if self._segment else at
        self._next_change = self._book.next_change(at)
        self._rates.clear()
        self._bounds.clear()

    def _bound(self, tier: str, at: datetime) -> Rates | None:
        zones = {"", *self._book.zones()}
        elsewhere = "/" if "" in self._book.zones() else ""  # no zone is called so: it stands for those not named
        found = [
            rates
            for endpoint in ("", EMBEDDINGS)
            for zone in {*zones, elsewhere}
            if (rates := self.rates(endpoint, tier, zone, at)) is not None
        ]
        return _dearest(found) if found else None


def placed(tier: str, zone: str) -> tuple[str, str, bool]:
    service_tier, batch = conditions_of(tier)
    return service_tier, zone, batch


def _rates(model_id: str, currency: str, begin: datetime, prices: tuple[Price | None, ...]) -> Rates:
    exact = [Fraction(0) if price is None else price.nano for price in prices]
    per = lcm(PPM, *(each.denominator for each in exact))
    inputs, cached, outputs = (int(each * per) for each in exact)
    return Rates(
        model_id=model_id,
        currency=currency,
        effective_from=begin,
        input_nano_per_million=inputs,
        cached_nano_per_million=cached,
        output_nano_per_million=outputs,
        per=per,
    )


def _dearest(found: list[Rates]) -> Rates:
    first = found[0]  # of a customer without a currency nothing is held: any bound will do
    found = [rates for rates in found if rates.currency == first.currency]
    per = lcm(*(rates.per for rates in found))
    return Rates(
        model_id=first.model_id,
        currency=first.currency,
        effective_from=first.effective_from,
        input_nano_per_million=max(rates.input_nano_per_million * (per // rates.per) for rates in found),
        cached_nano_per_million=max(rates.cached_nano_per_million * (per // rates.per) for rates in found),
        output_nano_per_million=max(rates.output_nano_per_million * (per // rates.per) for rates in found),
        per=per,
    )
