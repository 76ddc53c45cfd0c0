"""Use cases of the price book: plans, setting rates, and which rates count at a time. None of them commits."""

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from typing import Any, cast, get_args

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.plans import Plan, Tier
from galerne.billing.prices import NewRates, check_new_rates
from galerne.billing.pricing import Rates, TokenClass
from galerne.billing.tables import PlanRow, RateRow
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import Clock, Ids, NotFound, invariant
from galerne.models import find_model

_CLASSES: tuple[TokenClass, ...] = get_args(TokenClass)


async def list_plans(session: AsyncSession) -> list[Plan]:
    """Every plan, the one with the smallest weight first."""
    return [_plan(row) for row in await session.scalars(select(PlanRow).order_by(PlanRow.weight, PlanRow.id))]


async def find_plan(session: AsyncSession, plan_id: str) -> Plan:
    """The plan with that id; raises `NotFound` (`plan_not_found`)."""
    row = await session.get(PlanRow, plan_id)
    if row is None:
        raise NotFound(
            f"There is no plan '{plan_id[:100]}'; `galerne plans list` shows what there is.",
            code="plan_not_found",
            param="plan",
        )
    return _plan(row)


async def set_rates(session: AsyncSession, actor: Actor, model: str, new: NewRates, ids: Ids, clock: Clock) -> Rates:
    """The rates of a model (by id or alias) from `new.effective_from` on, journalled; what counted until then stays.

    Raises `NotFound` for an unknown model and `BadRequest` for a price, currency or time that cannot be.
    """
    now = clock.now()
    check_new_rates(new, now)
    rates = Rates(
        model_id=(await find_model(session, model)).id,
        currency=new.currency,
        effective_from=new.effective_from or now,
        input_nano_per_million=new.input_nano_per_million,
        cached_nano_per_million=new.cached_nano_per_million,
        output_nano_per_million=new.output_nano_per_million,
    )
    session.add_all([_row(rates, token_class, ids, now) for token_class in _CLASSES])
    await session.flush()
    await append(session, [_entry(actor, rates, now)])
    return rates


async def rates_of(session: AsyncSession, model_id: str, at: datetime, currency: str | None = None) -> Rates | None:
    """The rates of the model with that id that count at `at`: the newest that were effective by then.

    In `currency`, or in whichever the newest are; None if the model has no price. An alias is not looked up.
    """
    found = [rates for rates in await _counting(session, at, model_id) if currency in (None, rates.currency)]
    return found[0] if found else None


async def list_rates(session: AsyncSession, at: datetime) -> list[Rates]:
    """The rates that count at `at`, by model; of a model with several currencies the newest first."""
    return await _counting(session, at, None)


async def _counting(session: AsyncSession, at: datetime, model_id: str | None) -> list[Rates]:
    newest_first = (RateRow.effective_from.desc(), RateRow.created_at.desc(), RateRow.id.desc())
    partition = (RateRow.model_id, RateRow.currency, RateRow.token_class)
    rank = func.row_number().over(partition_by=partition, order_by=newest_first).label("rank")
    ranked = select(RateRow, rank).where(RateRow.effective_from <= at)
    if model_id is not None:
        ranked = ranked.where(RateRow.model_id == model_id)
    newest = ranked.subquery()
    order = (newest.c.model_id, newest.c.effective_from.desc(), newest.c.created_at.desc(), newest.c.currency)
    rows = await session.execute(select(newest).where(newest.c.rank == 1).order_by(*order))
    return [_rates(group) for _, group in groupby(rows, key=lambda row: (row.model_id, row.currency))]


def _rates(rows: Iterable[Any]) -> Rates:
    by_class = {row.token_class: row for row in rows}
    invariant(by_class.keys() == set(_CLASSES), "a model is priced for some classes of tokens only")
    row = by_class["input"]
    prices = {f"{token_class}_nano_per_million": each.nano_per_million for token_class, each in by_class.items()}
    return Rates(model_id=row.model_id, currency=row.currency, effective_from=row.effective_from, **prices)


def _row(rates: Rates, token_class: TokenClass, ids: Ids, now: datetime) -> RateRow:
    return RateRow(
        id=ids.new(),
        model_id=rates.model_id,
        token_class=token_class,
        currency=rates.currency,
        effective_from=rates.effective_from,
        nano_per_million=getattr(rates, f"{token_class}_nano_per_million"),
        created_at=now,
    )


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
