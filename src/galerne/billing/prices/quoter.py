"""Quotes for whoever asks: by what the database says now, or by what was read of it seconds ago and is kept."""

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.book import PriceBook
from galerne.billing.prices.decimals import PRICES_STALENESS_S
from galerne.billing.prices.quotes import Quote, QuoteAsk, quote
from galerne.billing.prices.reading import read_book
from galerne.billing.prices.token_prices import Customer
from galerne.identity import find_organisation
from galerne.kernel import Clock, Database, FreshCache, NotFound
from galerne.ledger import AccountKind, accounts_of
from galerne.models import find_model

__all__ = ["MODEL_STALENESS_S", "MOST_QUOTED", "Quoter", "quote_now"]

MOST_QUOTED = 1_000
"""How many pairs of an organisation and a model have their prices at hand, and how many names of models their ids."""

MODEL_STALENESS_S = 1.0
"""For how long a name is taken to mean the same model, as in the gateway."""


class _Terms(NamedTuple):
    customer: Customer
    book: PriceBook


async def quote_now(
    session: AsyncSession, organisation_id: str, ask: QuoteAsk, at: datetime, currency: str | None = None
) -> Quote:
    """What a request will cost that organisation; `ask.model_id` may be an alias. Nothing of it is kept.

    In `currency`, or in that of a prepaid account. Raises `NotFound` for a model that is not, or if any of what is
    asked has no price. An organisation without a name ("") is nobody's: it has the default prices.
    """
    model_id = (await find_model(session, ask.model_id)).id
    return _quoted(await _read(session, organisation_id, model_id), replace(ask, model_id=model_id), at, currency)


class Quoter:
    """Quotes as `quote_now` gives them, of what is kept from one to the next: for its process, and bounded.

    What it knows is no older than what a gateway may admit and charge by: which model a name means was read
    `MODEL_STALENESS_S` ago at most; an organisation's plan, the currencies of its prepaid accounts and a model's prices
    `PRICES_STALENESS_S`. Nothing makes it forget sooner, not even a write of its own process. So

    - it misses no price, modifier or price list that is given, for these begin `NOTICE` after they were written;
    - of another plan, an account that was opened and an alias that was moved it may know that much later, and so may
      each gateway: until then a quote is what one that has not heard of it charges;
    - prices that a re-rating writes into the past it knows as late, too, as far as they still count.

    Volume used, contracts and budgets change nothing here, nor in what a gateway charges.
    """

    def __init__(self, database: Database, clock: Clock, *, capacity: int = MOST_QUOTED) -> None:
        self._database = database
        self._clock = clock
        self._models: FreshCache[str, str, str] = FreshCache(
            self._find, clock, staleness_s=MODEL_STALENESS_S, refusal_s=0.0, capacity=capacity
        )
        self._terms: FreshCache[tuple[str, str], tuple[str, str], _Terms] = FreshCache(
            self._read, clock, staleness_s=PRICES_STALENESS_S, refusal_s=0.0, capacity=capacity
        )

    async def quote(self, organisation_id: str, ask: QuoteAsk, currency: str | None = None) -> Quote:
        """What a request that begins now will cost that organisation; raises `NotFound` as `quote_now` does."""
        model_id = await self._models.get(ask.model_id, ask.model_id)
        whose = (organisation_id, model_id)
        terms = await self._terms.get(whose, whose)
        return _quoted(terms, replace(ask, model_id=model_id), self._clock.now(), currency)

    async def _find(self, name: str) -> str:
        async with self._database.reading() as session:
            return (await find_model(session, name)).id

    async def _read(self, whose: tuple[str, str]) -> _Terms:
        async with self._database.reading() as session:
            return await _read(session, *whose)


async def _read(session: AsyncSession, organisation_id: str, model_id: str) -> _Terms:
    customer = await _customer(session, organisation_id)
    book = await read_book(session, model_id=model_id, subjects=(organisation_id, customer.plan))
    return _Terms(customer, book)


async def _customer(session: AsyncSession, organisation_id: str) -> Customer:
    if not organisation_id:
        return Customer("", "")
    plan = (await find_organisation(session, organisation_id)).plan
    accounts = await accounts_of(session, organisation_id)
    own = tuple(each.account.currency for each in accounts if each.account.kind is AccountKind.PREPAID)
    return Customer(organisation_id, plan, accounts=own)


def _quoted(terms: _Terms, ask: QuoteAsk, at: datetime, currency: str | None) -> Quote:
    found = quote(terms.book, terms.customer._replace(currency=currency), ask, at)
    if found is None:
        raise NotFound(f"The model '{ask.model_id}' has no price for that.", code="price_not_found", param="model")
    return found
