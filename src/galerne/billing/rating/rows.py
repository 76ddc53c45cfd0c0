"""How ratings are written: a row for each event and revision, and a queue for what has no price."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Table as SqlTable

from galerne.billing.rating.rater import RatingState, UsedTokens
from galerne.billing.rating.tables import UnmatchedUsageRow, UsageRatingRow
from galerne.billing.rating.totals import Hour
from galerne.kernel import Insert, Script

RATINGS = cast(SqlTable, UsageRatingRow.__table__)
_UNMATCHED = cast(SqlTable, UnmatchedUsageRow.__table__)
_RATING = tuple(column.name for column in RATINGS.columns)
_WAITING = tuple(column.name for column in _UNMATCHED.columns)

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


def write_revisions_script(revisions: Sequence[Revision], at: datetime) -> Script[None]:
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
    yield Insert(RATINGS, _RATING, rows)


def write_first_ratings_script(
    events: Sequence[tuple[Any, ...]],
    costs: Sequence[tuple[int | None, str | None, Hour]],
    version: int,
    at: Any,
) -> Script[None]:
    """Write what became of events that have just been rated for the first time, by the price book's `version`.

    Their times, and `at`, are as events have them: on SQLite texts, which need not become times and texts again.
    """
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
    yield Insert(RATINGS, _RATING, rows)


def queue_unmatched_script(events: Iterable[UsedTokens], at: datetime) -> Script[None]:
    """Put events that have no price where they are seen."""
    rows = [(each.event_id, each.organisation_id, each.model_id, each.occurred_at, at) for each in events]
    yield Insert(_UNMATCHED, _WAITING, rows)
