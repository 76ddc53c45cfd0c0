"""How ratings are written: a row for each event and revision, a queue for what has no price, sums added to hours."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.pricing import TokenClass
from galerne.billing.rating import BucketKey, LineKey, RatingState, Sum, UsedTokens
from galerne.billing.rating_tables import UnmatchedUsageRow, UsageBucketRow, UsageRatingRow
from galerne.kernel import Insert, Script, run_in_session

RATINGS = cast(SqlTable, UsageRatingRow.__table__)
BUCKETS = cast(SqlTable, UsageBucketRow.__table__)
_UNMATCHED = cast(SqlTable, UnmatchedUsageRow.__table__)
_SUMS = ("requests", "quantity", "nano")
_MOST_BUCKETS = 1000
"""Of a statement; a batch of events has about as many as keys were used in its hours."""


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
    columns = tuple(column.name for column in RATINGS.columns)
    rows = [
        (
            each.used.event_id,
            each.revision,
            each.state,
            each.used.organisation_id,
            each.used.occurred_at,
            each.period,
            each.version,
            each.nano,
            each.currency,
            each.correction,
            at,
        )
        for each in revisions
    ]
    await run_in_session(session, _inserted(Insert(RATINGS, columns, rows)))


async def queue_unmatched(session: AsyncSession, events: Iterable[UsedTokens], at: datetime) -> None:
    """Put events that have no price where they are seen."""
    columns = tuple(column.name for column in _UNMATCHED.columns)
    rows = [(each.event_id, each.organisation_id, each.model_id, each.occurred_at, at) for each in events]
    await run_in_session(session, _inserted(Insert(_UNMATCHED, columns, rows)))


async def add_to_buckets(session: AsyncSession, sums: dict[tuple[str, BucketKey], Sum]) -> None:
    """Add sums, by period and bucket, to what is there."""
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    statement = insert(BUCKETS)
    added = {name: BUCKETS.c[name] + statement.excluded[name] for name in _SUMS}
    statement = statement.on_conflict_do_update(index_elements=list(BUCKETS.primary_key.columns), set_=added)
    rows = [_bucket_values(period, key, amounts) for (period, key), amounts in sorted(sums.items(), key=_order)]
    for start in range(0, len(rows), _MOST_BUCKETS):
        await session.execute(statement, rows[start : start + _MOST_BUCKETS])


def bucket_of(row: Any) -> tuple[BucketKey, Sum]:
    """A stored bucket."""
    token_class = cast(TokenClass, row.token_class)
    line = LineKey(row.model_id, token_class, row.service_tier, row.zone, row.batch, row.rate_id, row.tier_index)
    key = BucketKey(row.organisation_id, row.workspace_id or None, row.key_id, row.hour, row.currency, line)
    return key, Sum(row.requests, row.quantity, row.nano)


def _inserted(insert: Insert) -> Script[None]:
    if insert.rows:
        yield insert


def _bucket_values(period: str, key: BucketKey, amounts: Sum) -> dict[str, object]:
    own: dict[str, object] = key._asdict() | key.line._asdict() | amounts._asdict()
    del own["line"]
    return own | {"period": period, "workspace_id": key.workspace_id or ""}


def _order(item: tuple[tuple[str, BucketKey], Sum]) -> tuple[object, ...]:
    (period, key), _ = item
    return (period, key.organisation_id, key.workspace_id or "", key.key_id, key.hour, key.currency, key.line)
