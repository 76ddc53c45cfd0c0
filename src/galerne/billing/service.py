"""Use cases of the price book: plans, setting rates, and which rates count at a time. None of them commits."""

from datetime import datetime
from typing import cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.plans import Plan, Tier
from galerne.billing.prices.book import DEFAULT_LIST, Match
from galerne.billing.prices.changes import NewRate, PriceChange, change_prices
from galerne.billing.prices.decimals import NewRates, check_new_rates
from galerne.billing.prices.pricing import Rates, TokenClass
from galerne.billing.prices.reading import read_book
from galerne.billing.prices.token_prices import Customer, ModelPrices
from galerne.billing.tables import PlanRow
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import Clock, Ids, NotFound, Query, Script, run_in_session
from galerne.models import find_model

_PLAN = "SELECT id, weight, tier, description FROM plans WHERE id = :id"
_CLASSES: tuple[TokenClass, ...] = ("input", "cached", "output")


async def list_plans(session: AsyncSession) -> list[Plan]:
    """Every plan, the one with the smallest weight first."""
    return [_plan(row) for row in await session.scalars(select(PlanRow).order_by(PlanRow.weight, PlanRow.id))]


def find_plan_script(plan_id: str) -> Script[Plan]:
    """The plan with that id; raises `NotFound` (`plan_not_found`)."""
    rows = yield Query(_PLAN, {"id": plan_id})
    if not rows:
        raise NotFound(
            f"There is no plan '{plan_id[:100]}'; `galerne plans list` shows what there is.",
            code="plan_not_found",
            param="plan",
        )
    found_id, weight, tier, description = rows[0]
    return Plan(id=found_id, weight=weight, tier=tier, description=description)


async def find_plan(session: AsyncSession, plan_id: str) -> Plan:
    """The same in a session."""
    return await run_in_session(session, find_plan_script(plan_id))


async def set_rates(session: AsyncSession, actor: Actor, model: str, new: NewRates, ids: Ids, clock: Clock) -> Rates:
    """The rates of a model (by id or alias) from `new.effective_from` on, journalled; what counted until then stays.

    Raises `NotFound` for an unknown model and `BadRequest` for a price, currency or time that cannot be.
    """
    now = clock.now()
    check_new_rates(new, now)
    model_id = (await find_model(session, model)).id
    written = tuple(
        NewRate(
            match=Match(token_class=token_class, model_id=model_id),
            currency=new.currency,
            nano=getattr(new, f"{token_class}_nano_per_million"),
            effective_from=new.effective_from,
        )
        for token_class in _CLASSES
    )
    change = await change_prices(session, actor, PriceChange(rates=written), ids, clock)
    rates = Rates(
        model_id=model_id,
        currency=new.currency,
        effective_from=change.rates[0].effective_from,
        input_nano_per_million=new.input_nano_per_million,
        cached_nano_per_million=new.cached_nano_per_million,
        output_nano_per_million=new.output_nano_per_million,
    )
    await append(session, [_entry(actor, rates, now)])
    return rates


async def rates_of(session: AsyncSession, model_id: str, at: datetime, currency: str | None = None) -> Rates | None:
    """The rates of the model with that id that count at `at` by the default list, in the standard tier.

    In `currency`, or in whichever the newest are; None if the model has no price. An alias is not looked up.
    """
    book = await read_book(session, model_id=model_id)
    return ModelPrices(book, Customer("", "", currency), model_id).standard(at)


async def list_rates(session: AsyncSession, at: datetime) -> list[Rates]:
    """The same for all models, by model; of a model with several currencies the newest first."""
    book = await read_book(session)
    models = sorted({rate.match.model_id for rate in book.rates if rate.match.model_id is not None})
    found: list[Rates] = []
    for model_id in models:
        for currency in book.currencies((DEFAULT_LIST,), model_id, at):
            rates = ModelPrices(book, Customer("", "", currency), model_id).standard(at)
            found += [] if rates is None else [rates]
    return found


def _entry(actor: Actor, rates: Rates, at: datetime) -> Entry:
    detail = {
        "currency": rates.currency,
        "effective_from": rates.effective_from.isoformat(),
        "input_nano_per_million": rates.input_nano_per_million,
        "cached_nano_per_million": rates.cached_nano_per_million,
        "output_nano_per_million": rates.output_nano_per_million,
    }
    resource = f"rates:{rates.model_id}"
    return Entry(action="rates.set", actor=actor, resource=resource, outcome="done", at=at, detail=detail)


def _plan(row: PlanRow) -> Plan:
    return Plan(id=row.id, weight=row.weight, tier=cast(Tier, row.tier), description=row.description)
