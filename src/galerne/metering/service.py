"""Metering's use cases: record events exactly once, and add up what an organisation used."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel import BadRequest
from galerne.metering.events import Totals, UsageEvent, add, distinct, refuse_other_content
from galerne.metering.tables import UsageEventRow

_EVENTS = cast(SqlTable, UsageEventRow.__table__)
_FIELDS = tuple(field.name for field in fields(UsageEvent))
_IDS_PER_QUERY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which events: each field that is not None narrows. `since` is inclusive, `until` exclusive, both aware."""

    workspace_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Sums over everything that the filter lets through, and one page of the events, newest first.

    `by_model` is in order of total tokens, largest first. `next_after` is None on the last page.
    """

    totals: Totals
    by_model: list[tuple[str, Totals]]
    events: list[UsageEvent]
    next_after: str | None


async def record(session: AsyncSession, events: Sequence[UsageEvent]) -> frozenset[str]:
    """Write the events, each once; returns the ids of those that were not there yet.

    One that is recorded already with the same content changes nothing. One that is recorded with other content raises
    `Conflict`, and then none of `events` is written.
    """
    offered = distinct(events)
    if not offered:
        return frozenset()
    async with session.begin_nested():
        written = await _insert_missing(session, list(offered.values()))
        for recorded in await _by_id(session, [name for name in offered if name not in written]):
            refuse_other_content(recorded, offered[recorded.id])
    return written


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
    conditions = conditions_of(organisation_id, wanted or UsageFilter())
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


def conditions_of(organisation_id: str | None, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    """The WHERE clause that `wanted` stands for."""
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


def token_sums() -> list[ColumnElement[int]]:
    """The columns of an aggregate query that `totals_of` reads, in its order."""
    row = UsageEventRow
    return [
        func.count(row.id),
        *(func.sum(column) for column in (row.input_tokens, row.cached_tokens, row.output_tokens)),
    ]


def totals_of(requests: int, input_tokens: int, cached_tokens: int, output_tokens: int) -> Totals:
    """`Totals` from the columns of `token_sums`; PostgreSQL sums big integers as decimals."""
    return Totals(
        requests=requests,
        input_tokens=int(input_tokens),
        cached_tokens=int(cached_tokens),
        output_tokens=int(output_tokens),
    )


async def _insert_missing(session: AsyncSession, events: list[UsageEvent]) -> frozenset[str]:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    # Only the id may clash silently; a row that breaks any other rule is refused.
    statement = dialect.insert(_EVENTS).on_conflict_do_nothing(index_elements=["id"]).returning(_EVENTS.c.id)
    return frozenset((await session.execute(statement, [asdict(event) for event in events])).scalars())


async def _by_id(session: AsyncSession, ids: Sequence[str]) -> list[UsageEvent]:
    found: list[UsageEvent] = []
    for start in range(0, len(ids), _IDS_PER_QUERY):
        chunk = ids[start : start + _IDS_PER_QUERY]
        found += await _events(session, select(_EVENTS).where(UsageEventRow.id.in_(chunk)))
    return found


async def _by_model(session: AsyncSession, conditions: list[ColumnElement[bool]]) -> list[tuple[str, Totals]]:
    query = select(UsageEventRow.model, *token_sums()).where(*conditions).group_by(UsageEventRow.model)
    sums = [(model, totals_of(*columns)) for model, *columns in await session.execute(query)]
    return sorted(sums, key=lambda pair: (-pair[1].total_tokens, pair[0]))


async def _older_than(session: AsyncSession, organisation_id: str | None, after: str) -> list[ColumnElement[bool]]:
    row = UsageEventRow
    conditions = conditions_of(organisation_id, UsageFilter())
    started_at = (
        await session.execute(select(row.started_at).where(row.id == after, *conditions))
    ).scalar_one_or_none()
    if started_at is None:
        raise BadRequest(f"There is no usage event '{after}'; take `after` from the page before.", param="after")
    return [row.started_at <= started_at, or_(row.started_at < started_at, row.id < after)]


async def _events(session: AsyncSession, query: Select[Any]) -> list[UsageEvent]:
    return [UsageEvent(**{name: row[name] for name in _FIELDS}) for row in (await session.execute(query)).mappings()]
