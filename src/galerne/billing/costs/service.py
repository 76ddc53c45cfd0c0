"""Costs read off the hourly sums of rated usage: pages for people, and a stream for files. Nothing is written.

The database groups, sorts and sums; what comes out is as long as there are groups, whatever they were made of.
"""

from collections.abc import AsyncGenerator
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, case, func, literal_column, select, tuple_, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from galerne.billing.budgets.tables import CostCentreRow
from galerne.billing.costs.query import MOST_ROWS, Cost, CostGroup, CostQuery, names_before, page_after
from galerne.billing.rating.sums import HOURS
from galerne.kernel import BadRequest

_ROWS_AT_ONCE = 1000
_CLASSES = {
    "input_tokens": ("input", "embeddings"),
    "cached_tokens": ("cached",),
    "output_tokens": ("output", "reasoning"),
}
_OWN, _WORKSPACES = aliased(CostCentreRow), aliased(CostCentreRow)


async def costs_page(
    session: AsyncSession, query: CostQuery, limit: int = 100, page: str | None = None
) -> tuple[list[Cost], str | None]:
    """At most `limit` sums in the order of their names, and the page behind them (None: there is none).

    `BadRequest` for a page of another query, and for more than 1000 rows at once.
    """
    if not 1 <= limit <= MOST_ROWS:
        raise BadRequest(f"limit lies between 1 and {MOST_ROWS}.", param="limit")
    statement = _summed(session, query, None if page is None else names_before(page, query)).limit(limit + 1)
    rows = [_cost(query, row) for row in await session.execute(statement)]
    return rows[:limit], page_after(rows[limit - 1].names) if len(rows) > limit else None


async def stream_costs(session: AsyncSession, query: CostQuery) -> AsyncGenerator[Cost]:
    """All sums in the order of their names, a thousand in memory at a time."""
    found = await session.stream(_summed(session, query, None).execution_options(yield_per=_ROWS_AT_ONCE))
    async for row in found:
        yield _cost(query, row)


def _cost(query: CostQuery, row: Any) -> Cost:
    # PostgreSQL sums big integers as decimals.
    width = len(query.columns)
    *tokens, nano, quantity, requests = (int(amount) for amount in row[width:])
    return Cost(
        names=tuple(name or None for name in row[:width]),
        **dict(zip(_CLASSES, tokens, strict=True)),
        nano=nano,
        quantity=quantity if "token_class" in query.columns else None,
        requests=requests if "token_class" in query.columns else None,
    )


def _summed(session: AsyncSession, query: CostQuery, after: list[str] | None) -> Select[Any]:
    """Names and sums. Names are made in a subquery: PostgreSQL takes an expression with parameters for another one."""
    bucket = HOURS.c
    named = _columns(session)
    chosen = [named[name].label(name) for name in query.columns]
    inner = select(*chosen, bucket.token_class.label("class"), bucket.quantity, bucket.requests, bucket.nano)
    inner = inner.select_from(HOURS)
    if query.cost_centres or "cost_centre" in query.columns:
        for centre, kind, subject in ((_OWN, "key", bucket.key_id), (_WORKSPACES, "workspace", bucket.workspace_id)):
            inner = inner.outerjoin(
                centre,
                and_(
                    centre.organisation_id == bucket.organisation_id,
                    centre.kind == kind,
                    centre.subject_id == subject,
                ),
            )
    rows = inner.where(*_conditions(query, named)).subquery()
    names = [rows.c[name] for name in query.columns]
    tokens = [func.sum(case((rows.c["class"].in_(classes), rows.c.quantity), else_=0)) for classes in _CLASSES.values()]
    sums = [*tokens, *(func.sum(rows.c[name]) for name in ("nano", "quantity", "requests"))]
    columns: list[ColumnElement[Any]] = [*names, *sums]
    statement: Select[Any] = select(*columns).group_by(*names).order_by(*names)
    return statement if after is None else statement.where(tuple_(*names) > tuple_(*after))


def _columns(session: AsyncSession) -> dict[str, ColumnElement[Any]]:
    bucket = HOURS.c
    seconds = type_coerce(bucket.hour, Integer) * 3600
    if session.get_bind().dialect.name == "sqlite":
        day: ColumnElement[Any] = func.strftime("%Y-%m-%d", seconds, "unixepoch")
    else:
        day = func.to_char(func.timezone("UTC", func.to_timestamp(seconds)), literal_column("'YYYY-MM-DD'"))
    found: dict[CostGroup, ColumnElement[Any]] = {
        "day": day,
        "organisation_id": bucket.organisation_id,
        "workspace_id": bucket.workspace_id,
        "api_key_id": bucket.key_id,
        "cost_centre": func.coalesce(_OWN.cost_centre, _WORKSPACES.cost_centre, ""),
        "model": bucket.model_id,
        "token_class": bucket.token_class,
        "service_tier": bucket.service_tier,
        "zone": bucket.zone,
    }
    return {**found, "currency": bucket.currency}


def _conditions(query: CostQuery, named: dict[str, ColumnElement[Any]]) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for name, wanted in (
        ("organisation_id", query.organisation_id),
        ("currency", query.currency),
    ):
        if wanted is not None:
            conditions.append(named[name] == wanted)
    for name, several in (
        ("workspace_id", query.workspace_ids),
        ("api_key_id", query.key_ids),
        ("model", query.models),
        ("cost_centre", query.cost_centres),
    ):
        if several:
            conditions.append(named[name].in_(several))
    if query.since is not None:
        conditions.append(HOURS.c.hour >= query.since)
    if query.until is not None:
        conditions.append(HOURS.c.hour < query.until)
    return conditions
