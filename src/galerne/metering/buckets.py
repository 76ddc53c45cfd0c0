"""Usage by slices of time, as OpenAI's organisation usage endpoints cut it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel import BadRequest
from galerne.metering.events import Totals
from galerne.metering.service import token_sums, totals_of
from galerne.metering.tables import UsageEventRow

Width = Literal["1m", "1h", "1d"]
Kind = Literal["completions", "embeddings"]
Group = Literal["project_id", "api_key_id", "model"]

WIDTH_S: dict[Width, int] = {"1m": 60, "1h": 3_600, "1d": 86_400}
"""Seconds of a bucket; days are UTC days."""

DEFAULT_BUCKETS: dict[Width, int] = {"1m": 60, "1h": 24, "1d": 7}
MOST_BUCKETS: dict[Width, int] = {"1m": 1_440, "1h": 168, "1d": 31}
"""Buckets in one page, as OpenAI documents them for `limit`."""

_MOST_ROWS = 50_000
_COLUMNS: dict[Group, ColumnElement[Any]] = {
    "project_id": UsageEventRow.workspace_id.expression,
    "api_key_id": UsageEventRow.key_id.expression,
    "model": UsageEventRow.model.expression,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketQuery:
    """Which usage to cut. Times are Unix seconds, `end_s` exclusive; empty lists let everything through."""

    organisation_id: str
    kind: Kind
    start_s: int
    end_s: int
    width: Width
    limit: int
    group_by: Sequence[Group] = ()
    workspace_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sums of one slice of time, Unix seconds, `end_s` exclusive: for each group its names and its totals."""

    start_s: int
    end_s: int
    results: list[tuple[dict[Group, str | None], Totals]]


def slices(query: BucketQuery) -> tuple[list[tuple[int, int]], int | None]:
    """The bounds of the page's buckets, and the second at which the next page starts (None on the last page).

    Buckets lie on whole minutes, hours or days of UTC; the first and the last are cut to the query's range.
    """
    if query.end_s <= query.start_s:
        return [], None
    width_s = WIDTH_S[query.width]
    first = query.start_s // width_s
    after_last = -(-query.end_s // width_s)
    stop = min(after_last, first + query.limit)
    bounds = [(max(n * width_s, query.start_s), min((n + 1) * width_s, query.end_s)) for n in range(first, stop)]
    return bounds, stop * width_s if stop < after_last else None


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
        found.setdefault(number, []).append((names, totals_of(*columns[-4:])))
    width_s = WIDTH_S[query.width]
    return [Bucket(start_s, end_s, found.get(start_s // width_s, [])) for start_s, end_s in bounds], next_s


async def _sums(session: AsyncSession, query: BucketQuery, start_s: int, end_s: int) -> Sequence[Any]:
    row = UsageEventRow
    number = (_seconds(session) // WIDTH_S[query.width]).label("number")
    groups = [_COLUMNS[name] for name in query.group_by]
    is_embedding = row.endpoint == "embeddings"
    statement = select(number, *groups, *token_sums()).where(
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
        return cast(func.strftime("%s", started_at), BigInteger)
    return cast(func.floor(func.extract("epoch", started_at)), BigInteger)
