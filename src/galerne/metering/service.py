"""Metering's use cases: record events exactly once, and add up what an organisation used."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, cast

from sqlalchemy import BigInteger, ColumnElement, Select, extract, func, or_, select
from sqlalchemy import Table as SqlTable
from sqlalchemy import cast as sql_cast
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel import BadRequest, Insert, Query, Script, run_in_session
from galerne.metering.buckets import WIDTH_S, Bucket, BucketQuery, Group, slices
from galerne.metering.events import (
    CONTENT,
    Totals,
    UsageEvent,
    UsageFilter,
    UsagePage,
    add,
    distinct,
    refuse_other_content,
)
from galerne.metering.tables import UsageEventRow

_EVENTS = cast(SqlTable, UsageEventRow.__table__)
_FIELDS = UsageEvent.__struct_fields__
_row = attrgetter(*_FIELDS)
_RECORDED = f"SELECT {', '.join(CONTENT)} FROM usage_events WHERE id IN :ids"  # noqa: S608  # names of ours
_KNOWN = "SELECT id FROM usage_events WHERE id IN :ids"
_MOST_ROWS = 50_000
_COLUMNS: dict[Group, ColumnElement[Any]] = {
    "project_id": UsageEventRow.workspace_id.expression,
    "api_key_id": UsageEventRow.key_id.expression,
    "model": UsageEventRow.model.expression,
}


async def record(session: AsyncSession, events: Sequence[UsageEvent]) -> frozenset[str]:
    """Write the events, each once; returns the ids of those that were not there yet.

    One that is recorded already with the same content changes nothing. One that is recorded with other content raises
    `Conflict`, and then none of `events` is written.
    """
    async with session.begin_nested():
        return await run_in_session(session, record_script(events))


def record_script(events: Sequence[UsageEvent]) -> Script[frozenset[str]]:
    """The same as a script, whose whole transaction a `Conflict` undoes."""
    offered = distinct(events)
    if not offered:
        return frozenset()
    rows = [_row(event) for event in offered.values()]
    written = frozenset([row[0] for row in (yield Insert(_EVENTS, _FIELDS, rows, once_by="id"))])
    if len(written) < len(offered):
        known = [name for name in offered if name not in written]
        for recorded in (yield Query(_RECORDED, {"ids": known})):
            refuse_other_content(tuple(recorded), offered[recorded[0]])
    return written


def recorded_script(event_ids: Collection[str]) -> Script[frozenset[str]]:
    """Which of these events are recorded."""
    if not event_ids:
        return frozenset()
    return frozenset(row[0] for row in (yield Query(_KNOWN, {"ids": list(event_ids)})))


async def usage(
    session: AsyncSession,
    organisation_id: str | None,
    wanted: UsageFilter | None = None,
    limit: int = 100,
    after: str | None = None,
) -> UsagePage:
    """What one organisation used: sums, sums by model, and `limit` events after the event `after`, newest first.

    `organisation_id` None means all of them, for the operator alone. An unknown `after` raises `BadRequest`.
    """
    conditions = _conditions(organisation_id, wanted or UsageFilter())
    by_model = await _by_model(session, conditions)
    query = select(_EVENTS).where(*conditions)
    if after is not None:
        query = query.where(*await _older_than(session, organisation_id, after))
    query = query.order_by(UsageEventRow.started_at.desc(), UsageEventRow.id.desc())
    events = await _events(session, query.limit(limit + 1))
    more = len(events) > limit
    return UsagePage(
        add(sums for _, sums in by_model), by_model, events[:limit], events[limit - 1].id if more else None
    )


async def usage_by_bucket(session: AsyncSession, query: BucketQuery) -> tuple[list[Bucket], int | None]:
    """One page of buckets, oldest first, empty ones included, and the start of the next page or None.

    Raises `BadRequest` when so many groups have usage that the answer would not be read anyway.
    """
    bounds, next_s = slices(query)
    if not bounds:
        return [], None
    found: dict[int, list[tuple[dict[Group, str | None], Totals]]] = {}
    for number, *columns in await _sums(session, query, bounds[0][0], bounds[-1][1]):
        names: dict[Group, str | None] = dict(zip(query.group_by, columns[:-4], strict=True))
        found.setdefault(number, []).append((names, _totals(*columns[-4:])))
    width_s = WIDTH_S[query.width]
    return [Bucket(start_s, end_s, found.get(start_s // width_s, [])) for start_s, end_s in bounds], next_s


def _conditions(organisation_id: str | None, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    row = UsageEventRow
    conditions: list[ColumnElement[bool]] = []
    for column, value in (
        (row.organisation_id, organisation_id),
        (row.workspace_id, wanted.workspace_id),
        (row.key_id, wanted.key_id),
        (row.model, wanted.model),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.since is not None:
        conditions.append(row.started_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(row.started_at < wanted.until)
    return conditions


def _token_sums() -> list[ColumnElement[int]]:
    # In the order in which _totals takes them.
    row = UsageEventRow
    return [
        func.count(row.id),
        *(func.sum(column) for column in (row.input_tokens, row.cached_tokens, row.output_tokens)),
    ]


def _totals(requests: int, input_tokens: int, cached_tokens: int, output_tokens: int) -> Totals:
    # PostgreSQL sums big integers as decimals.
    return Totals(
        requests=requests,
        input_tokens=int(input_tokens),
        cached_tokens=int(cached_tokens),
        output_tokens=int(output_tokens),
    )


async def _by_model(session: AsyncSession, conditions: list[ColumnElement[bool]]) -> list[tuple[str, Totals]]:
    query = select(UsageEventRow.model, *_token_sums()).where(*conditions).group_by(UsageEventRow.model)
    sums = [(model, _totals(*columns)) for model, *columns in await session.execute(query)]
    return sorted(sums, key=lambda pair: (-pair[1].total_tokens, pair[0]))


async def _older_than(session: AsyncSession, organisation_id: str | None, after: str) -> list[ColumnElement[bool]]:
    row = UsageEventRow
    conditions = _conditions(organisation_id, UsageFilter())
    started_at = (
        await session.execute(select(row.started_at).where(row.id == after, *conditions))
    ).scalar_one_or_none()
    if started_at is None:
        raise BadRequest(f"There is no usage event '{after}'; take `after` from the page before.", param="after")
    return [row.started_at <= started_at, or_(row.started_at < started_at, row.id < after)]


async def _events(session: AsyncSession, query: Select[Any]) -> list[UsageEvent]:
    return [UsageEvent(**{name: row[name] for name in _FIELDS}) for row in (await session.execute(query)).mappings()]


async def _sums(session: AsyncSession, query: BucketQuery, start_s: int, end_s: int) -> Sequence[Any]:
    row = UsageEventRow
    number = (_seconds(session) // WIDTH_S[query.width]).label("number")
    groups = [_COLUMNS[name] for name in query.group_by]
    is_embedding = row.endpoint == "embeddings"
    statement = select(number, *groups, *_token_sums()).where(
        row.organisation_id == query.organisation_id,
        row.started_at >= datetime.fromtimestamp(start_s, UTC),
        row.started_at < datetime.fromtimestamp(end_s, UTC),
        is_embedding if query.kind == "embeddings" else ~is_embedding,
    )
    for column, wanted in (
        (row.workspace_id, query.workspace_ids),
        (row.key_id, query.key_ids),
        (row.model, query.models),
    ):
        if wanted:
            statement = statement.where(column.in_(wanted))
    # Grouped by the label's name: PostgreSQL takes two expressions with parameters for different ones.
    statement = statement.group_by("number", *groups).order_by("number", *groups).limit(_MOST_ROWS + 1)
    rows = (await session.execute(statement)).all()
    if len(rows) > _MOST_ROWS:
        raise BadRequest(
            f"More than {_MOST_ROWS} groups have usage in this page; ask for fewer buckets or groups.", param="limit"
        )
    return rows


def _seconds(session: AsyncSession) -> ColumnElement[int]:
    started_at = UsageEventRow.started_at
    if session.get_bind().dialect.name == "sqlite":
        return sql_cast(func.strftime("%s", started_at), BigInteger)
    return sql_cast(func.floor(extract("epoch", started_at)), BigInteger)
