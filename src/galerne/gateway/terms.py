"""What a key's requests for a model are subject to: limits, price, account, plan; read together, kept for seconds."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar, cast

from galerne.billing import (
    PRICES_STALENESS_S,
    Customer,
    ModelPrices,
    Plan,
    PriceBook,
    Rates,
    book_script,
    find_plan_script,
    paying,
)
from galerne.gateway.tickets import Tier
from galerne.identity import KeyGrant
from galerne.kernel import Clock, FreshCache, NotFound, Reader, Script, Settings
from galerne.ledger import AccountKind, house_account, prepaid_accounts_script
from galerne.metering import LimitSubject, PoolSpec, pool_specs, rules_script
from galerne.models import Model

__all__ = ["MOST_TERMS", "TERMS_STALENESS_S", "Terms", "TermsCache", "terms_reader"]

MOST_TERMS = 10_000
"""How many pairs of key and model have their terms at hand: 1 kB each, with the two limits of a key."""

TERMS_STALENESS_S = PRICES_STALENESS_S
"""For how long limits, prices and plans are trusted; a price is written at least `billing.NOTICE` before it begins."""

T = TypeVar("T")
_LEAST_PLAN = Plan(id="", weight=1, tier="standard", description="")


@dataclass(frozen=True, slots=True)
class Terms:
    """The pools that a request draws from, its plan, what its tokens cost and who pays: (debit, credit) account ids.

    `rates`, those of the standard tier, is None for a model without a price, `accounts` for an organisation without an
    account in the price's currency: then use is counted and nothing is charged. `prices` has those of every tier and
    zone, now and as they change while these terms are kept. They say for `lasts_s` what they said when they were read:
    with a price that begins, an account may pay that did not.
    """

    pools: tuple[PoolSpec, ...]
    plan: Plan
    rates: Rates | None = None
    accounts: tuple[str, str] | None = None
    prices: ModelPrices | None = None
    lasts_s: float = math.inf

    def most_nano(self, prompt_tokens: int, output_tokens: int, tier: Tier, at: datetime) -> int:
        """The most that a request within these bounds, begun at `at`, can cost wherever it is answered."""
        return 0 if self.prices is None else self.prices.most_nano(prompt_tokens, output_tokens, tier, at)

    def rates_for(self, endpoint: str, tier: Tier, zone: str, at: datetime) -> Rates | None:
        """What a request's tokens cost, modifiers in: those that rating will find for its usage event."""
        return None if self.prices is None else self.prices.rates(endpoint, tier, zone, at)


def terms_reader(
    reader: Reader, settings: Settings, clock: Clock
) -> Callable[[tuple[KeyGrant, Model]], Awaitable[Terms]]:
    """A function that reads the terms; `Unavailable` (503) when the database is down."""
    defaults = (settings.default_requests_per_minute, settings.default_tokens_per_minute)
    return lambda whose: reader.run(_terms_script(*whose, defaults, clock.now()))


def _terms_script(grant: KeyGrant, model: Model, defaults: tuple[int, int], now: datetime) -> Script[Terms]:
    actor = grant.actor
    subject = LimitSubject(
        key_id=grant.key_id,
        workspace_id=actor.workspace_id,
        organisation_id=actor.organisation_id,
        plan=grant.plan,
        requests_per_minute=grant.requests_per_minute,
        tokens_per_minute=grant.tokens_per_minute,
    )
    rules = yield from rules_script(subject, model.id)
    plan = yield from _plan_script(grant.plan)
    rates, accounts, prices = yield from _price_script(grant, model, now)
    pools = pool_specs(rules, subject, model.id, defaults)
    lasts_s = math.inf if prices is None else prices.unchanged_s(now)
    return Terms(pools, _shared(plan), _shared(rates), accounts, prices, lasts_s)


def _shared(value: T) -> T:
    """An equal value of before: many keys have the same plan and price, and each reading makes new ones."""
    return cast(T, _first(value))


@lru_cache(1_000)
def _first(value: Any) -> Any:
    return value


@lru_cache(1_000)
def _prices(book: PriceBook, customer: Customer, model_id: str) -> ModelPrices:
    return ModelPrices(book, customer, model_id)


def _plan_script(name: str) -> Script[Plan]:
    try:
        return (yield from find_plan_script(name))
    except NotFound:
        return _LEAST_PLAN  # a plan that was taken away must not stop anybody's work


def _price_script(
    grant: KeyGrant, model: Model, at: datetime
) -> Script[tuple[Rates | None, tuple[str, str] | None, ModelPrices | None]]:
    """The prices in the currency of the organisation's prepaid account, if it has one with a price for the model."""
    organisation_id = grant.actor.organisation_id
    book = _shared((yield from book_script(model_id=model.id, subjects=(organisation_id, grant.plan))))
    if not book.rates:
        return None, None, None
    accounts = yield from prepaid_accounts_script(organisation_id)
    whose = Customer(organisation_id, grant.plan, accounts=tuple(accounts))
    customer = paying(book, whose, model.id, at)  # as rating does
    prices = _prices(book, customer, model.id)
    rates = prices.standard(at)
    if rates is None or customer.currency is None:
        return rates, None, prices
    return rates, (accounts[rates.currency], house_account(AccountKind.REVENUE, rates.currency).id), prices


class _Terms(FreshCache[tuple[str, str], tuple[KeyGrant, Model], Terms]):
    def lasts_s(self, value: Terms) -> float:
        return value.lasts_s


class TermsCache:
    """Terms by key and model."""

    def __init__(
        self,
        read: Callable[[tuple[KeyGrant, Model]], Awaitable[Terms]],
        clock: Clock,
        *,
        outage_s: float,
        capacity: int = MOST_TERMS,
    ) -> None:
        self._terms = _Terms(
            read,
            clock,
            staleness_s=TERMS_STALENESS_S,
            refusal_s=0.0,
            capacity=capacity,
            outage_s=outage_s,
        )

    async def of(self, grant: KeyGrant, model: Model) -> Terms:
        """The terms of a key's requests for `model`, at most five seconds old while the database answers."""
        return await self._terms.get((grant.key_id, model.id), (grant, model))
