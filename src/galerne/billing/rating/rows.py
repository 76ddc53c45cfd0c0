"""How ratings are written: a row for each event and revision, and a queue for what has no price."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.rating.rater import RatingState, UsedTokens
from galerne.billing.rating.tables import UnmatchedUsageRow, UsageRatingRow
from galerne.billing.rating.totals import Hour
from galerne.kernel import utc_text

RATINGS = cast(SqlTable, UsageRatingRow.__table__)
_UNMATCHED = cast(SqlTable, UnmatchedUsageRow.__table__)
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
    await write_rows(session, RATINGS, rows)


async def write_first_ratings(
    session: AsyncSession,
    events: Sequence[tuple[Any, ...]],
    costs: Sequence[tuple[int | None, str | None, Hour]],
    how: tuple[int, Any],
) -> None:
    """Write what became of events that have just been rated for the first time; `how`: book's version, and when."""
    version, at = how
    rows: list[Row] = [
        (
            event[0],
            0,
            "unmatched" if nano is None else "rated",
            event[4],
            event[1],
            hour.period,
            version,
            nano or 0,
            currency,
            0,
            at,
        )
        for event, (nano, currency, hour) in zip(events, costs, strict=True)
    ]
    await write_rows(session, RATINGS, rows)


async def queue_unmatched(session: AsyncSession, events: Iterable[UsedTokens], at: datetime) -> None:
    """Put events that have no price where they are seen."""
    rows = [(each.event_id, each.organisation_id, each.model_id, each.occurred_at, at) for each in events]
    await write_rows(session, _UNMATCHED, rows)


async def write_rows(session: AsyncSession, table: SqlTable, rows: Sequence[Row], adding: tuple[str, ...] = ()) -> None:
    """Write rows, each with a value for every column of `table`, in one call of the driver however many there are.

    With `adding`, a row whose key is there adds these columns to it; then each key may be among `rows` once.
    """
    if not rows:
        return
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(_postgresql(table, adding), tuple(map(list, zip(*rows, strict=True))))
        return
    times = [number for number, value in enumerate(rows[0]) if isinstance(value, datetime)]
    if times:
        columns = list(zip(*rows, strict=True))
        for number in times:
            columns[number] = tuple(map(utc_text, columns[number]))
        rows = list(zip(*columns, strict=True))
    # SQLAlchemy's type knows one row's parameters here; a list of rows is the driver's executemany.
    await connection.exec_driver_sql(_sqlite(table, adding), rows)  # type: ignore[arg-type]  # many rows


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
    rows = f"SELECT * FROM unnest({arrays})"  # noqa: S608  # names of ours, as on the next line
    return f"INSERT INTO {table.name} ({names}) {rows}{_added(table, adding)}"


def _added(table: SqlTable, adding: tuple[str, ...]) -> str:
    if not adding:
        return ""
    key = ",".join(column.name for column in table.primary_key.columns)
    return f" ON CONFLICT ({key}) DO UPDATE SET " + ",".join(f"{n} = {table.name}.{n} + excluded.{n}" for n in adding)
