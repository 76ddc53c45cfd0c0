"""What a request will cost, line by line, before it runs: what is expected, and the most that it can be. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from galerne.billing.prices.book import Price, PriceBook, Use, conditions_of, priced_id
from galerne.billing.prices.decimals import decimal_of
from galerne.billing.prices.pricing import TokenClass, cost_nano
from galerne.billing.prices.token_prices import Customer, ModelPrices, TokenPrices, paying, token_prices
from galerne.ledger import half_even

__all__ = ["Quote", "QuoteAsk", "QuoteLine", "cost_lines", "quote", "quote_line_fields"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteAsk:
    """A request that may be made: bounds on its tokens, what of them is expected, and other quantities by class.

    `cached_tokens` are those of `input_tokens` that are expected in a cache; `expected_output_tokens` None means all.
    """

    model_id: str
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    expected_output_tokens: int | None = None
    endpoint: str = "chat.completions"
    tier: str = "standard"
    zone: str = ""
    quantities: Mapping[TokenClass, int] | None = None


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """What is expected of one class, or was used: so many units at `nano` for `per` of them, `amount_nano` in all."""

    token_class: TokenClass
    quantity: int
    rate_id: str
    nano: int
    per: int
    amount_nano: int


@dataclass(frozen=True, slots=True)
class Quote:
    """What a request will cost, in nano-units of `currency`; `most_nano` is what the gateway would hold for it."""

    currency: str
    lines: tuple[QuoteLine, ...]
    expected_nano: int
    most_nano: int


def quote(book: PriceBook, customer: Customer, ask: QuoteAsk, at: datetime) -> Quote | None:
    """What `ask` costs that customer at `at`; None if any of it has no price in one currency."""
    customer = paying(book, customer, ask.model_id, at)
    lines: list[QuoteLine] = []
    expected = most = 0
    currency = customer.currency
    if ask.input_tokens or ask.output_tokens or not ask.quantities:
        found = token_prices(book, customer, ask.model_id, (ask.endpoint, ask.tier, ask.zone), at)
        if found is None:
            return None
        currency = found.rates.currency
        lines += cost_lines(found, _expected(ask))
        expected = sum(line.amount_nano for line in lines)
        own = Customer(customer.organisation_id, customer.plan, currency)
        prices = ModelPrices(book, own, ask.model_id)
        most = prices.most_nano(ask.input_tokens, ask.output_tokens, ask.tier, at)
    for token_class, quantity in (ask.quantities or {}).items():
        price = _other(book, customer._replace(currency=currency), ask, token_class, at)
        if price is None:
            return None
        currency = price.rate.currency
        amount = half_even(quantity * price.nano.numerator, price.nano.denominator)
        lines.append(_line(token_class, quantity, price, amount))
        expected, most = expected + amount, most + amount
    return Quote(currency or "", tuple(lines), expected, most)


def cost_lines(found: TokenPrices, counts: tuple[int, int, int]) -> list[QuoteLine]:
    """What so many tokens of each class of `found` cost, class by class.

    Tokens are rounded once together, as they are charged, and shared by rounding the running sum; so lines add up to
    `cost_nano` of all of them, and are those that rating makes.
    """
    lines: list[QuoteLine] = []
    so_far, before = [0, 0, 0], 0
    for index, (token_class, price) in enumerate(zip(found.classes, found.prices, strict=True)):
        so_far[index] = counts[index]
        running = cost_nano(found.rates, *so_far)
        if price is not None:
            lines.append(_line(token_class, counts[index], price, running - before))
        before = running
    return lines


def quote_line_fields(line: QuoteLine) -> dict[str, Any]:
    """A line as JSON shows it: money is decimals in strings."""
    return {
        "token_class": line.token_class,
        "quantity": line.quantity,
        "price": decimal_of(line.nano),
        "per": line.per,
        "rate": line.rate_id,
        "amount": decimal_of(line.amount_nano),
    }


def _expected(ask: QuoteAsk) -> tuple[int, int, int]:
    cached = min(ask.cached_tokens, ask.input_tokens)
    output = ask.output_tokens if ask.expected_output_tokens is None else ask.expected_output_tokens
    return ask.input_tokens - cached, cached, min(output, ask.output_tokens)


def _line(token_class: TokenClass, quantity: int, price: Price, amount_nano: int) -> QuoteLine:
    exact = price.nano * price.rate.per
    return QuoteLine(
        token_class, quantity, priced_id(price), exact.numerator, price.rate.per * exact.denominator, amount_nano
    )


def _other(book: PriceBook, customer: Customer, ask: QuoteAsk, token_class: TokenClass, at: datetime) -> Price | None:
    chain = book.chain(customer.organisation_id, customer.plan, at)
    service_tier, batch = conditions_of(ask.tier)
    use = Use(ask.model_id, token_class, service_tier, ask.zone, batch)
    currencies = [customer.currency] if customer.currency else book.currencies(chain, ask.model_id, at)
    found = (book.price(chain, currency, use, at) for currency in currencies)
    return next((price for price in found if price is not None), None)
