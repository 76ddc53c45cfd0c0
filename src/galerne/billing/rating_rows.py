"""How ratings are written: a row for each event and revision, a queue for what has no price, sums added to hours."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.pricing import TokenClass
from galerne.billing.rating import BucketKey, LineKey, RatingState, Sum, UsedTokens
from galerne.billing.rating_tables import UnmatchedUsageRow, UsageBucketRow, UsageRatingRow
from galerne.kernel import UtcTime, utc_text

RATINGS = cast(SqlTable, UsageRatingRow.__table__)
BUCKETS = cast(SqlTable, UsageBucketRow.__table__)
_UNMATCHED = cast(SqlTable, UnmatchedUsageRow.__table__)
_SUMS = ("requests", "quantity", "nano")
_PG = PGDialect()

Row = tuple[Any, ...]


class Revision(NamedTuple):
    """What an event counts as from now on, to be written: `nano` None where it has no price or is voided."""

    used: UsedTokens
    revision: int
    state: RatingState
    period: str
    version: int
    correction: int = 0
    nano: int = 0
    currency: str | None = None


def month_of(at: datetime) -> str:
    """The month in which something happened, UTC: `2026-11`."""
    moment = at.astimezone(UTC)
    return f"{moment.year:04d}-{moment.month:02d}"


def period_of(at: datetime, closed: frozenset[str]) -> str:
    """The month in which usage of that time is billed: its own, or the first one after it that is not closed."""
    month = month_of(at)
    while month in closed:
        month = next_month(month)
    return month


def next_month(month: str) -> str:
    """The month after `2026-11`."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def month_start(month: str) -> datetime:
    """The instant at which `2026-11` begins, UTC."""
    return datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)


async def write_revisions(session: AsyncSession, revisions: Sequence[Revision], at: datetime) -> None:
    """Write what became of events; a state that was written already is the database's refusal."""
    rows = [
        (
            used.event_id,
            revision,
            state,
            used.organisation_id,
            used.occurred_at,
            period,
            version,
            nano,
            currency,
            correction,
            at,
        )
        for used, revision, state, period, version, correction, nano, currency in revisions
    ]
    await _write(session, RATINGS, rows)


async def queue_unmatched(session: AsyncSession, events: Iterable[UsedTokens], at: datetime) -> None:
    """Put events that have no price where they are seen."""
    rows = [(each.event_id, each.organisation_id, each.model_id, each.occurred_at, at) for each in events]
    await _write(session, _UNMATCHED, rows)


async def add_to_buckets(session: AsyncSession, sums: dict[tuple[str, BucketKey], Sum]) -> None:
    """Add sums, by period and bucket, to what is there."""
    rows = [
        (
            period,
            organisation_id,
            workspace_id or "",
            key_id,
            hour,
            line.rate_id,
            *line[:5],
            line.tier_index,
            currency,
            *added,
        )
        for (period, (organisation_id, workspace_id, key_id, hour, currency, line)), added in sums.items()
    ]
    await _write(session, BUCKETS, sorted(rows), adding=_SUMS)  # in the order of the key: pages are written once


def bucket_of(row: Any) -> tuple[BucketKey, Sum]:
    """A stored bucket."""
    token_class = cast(TokenClass, row.token_class)
    line = LineKey(row.model_id, token_class, row.service_tier, row.zone, row.batch, row.rate_id, row.tier_index)
    key = BucketKey(row.organisation_id, row.workspace_id or None, row.key_id, row.hour, row.currency, line)
    return key, Sum(row.requests, row.quantity, row.nano)


async def _write(session: AsyncSession, table: SqlTable, rows: list[Row], adding: tuple[str, ...] = ()) -> None:
    # One call of the driver however many rows there are: a call a row, or a few hundred, costs more than the row.
    if not rows:
        return
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(_postgresql(table, adding), tuple(map(list, zip(*rows, strict=True))))
        return
    columns = list(zip(*rows, strict=True))
    for number, column in enumerate(table.columns):
        if isinstance(column.type, UtcTime):
            columns[number] = tuple(map(utc_text, columns[number]))
    await connection.exec_driver_sql(_sqlite(table, adding), list(zip(*columns, strict=True)))


@lru_cache(20)
def _sqlite(table: SqlTable, adding: tuple[str, ...]) -> str:
    names = ",".join(column.name for column in table.columns)
    marks = ",".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks}){_added(table, adding)}"  # noqa: S608  # names of ours


@lru_cache(20)
def _postgresql(table: SqlTable, adding: tuple[str, ...]) -> str:
    names = ",".join(column.name for column in table.columns)
    types = (column.type.compile(_PG) for column in table.columns)
    arrays = ",".join(f"${number}::{each}[]" for number, each in enumerate(types, 1))
    rows = f"SELECT * FROM unnest({arrays})"  # noqa: S608  # names of ours
    return f"INSERT INTO {table.name} ({names}) {rows}{_added(table, adding)}"  # names of ours


def _added(table: SqlTable, adding: tuple[str, ...]) -> str:
    if not adding:
        return ""
    key = ",".join(column.name for column in table.primary_key.columns)
    return f" ON CONFLICT ({key}) DO UPDATE SET " + ",".join(f"{n} = {table.name}.{n} + excluded.{n}" for n in adding)
