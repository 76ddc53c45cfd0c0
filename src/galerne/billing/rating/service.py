"""Rating in the database: every usage event gets a state exactly once, and hourly sums that are those of its events.

Nothing here commits. Whoever rates holds one row for the transaction; a batch that was rated already finds nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.reading import newest_version, read_book
from galerne.billing.rating.rater import BucketKey, RatedUsage, Sum, UsedTokens, buckets_of
from galerne.billing.rating.rerating_tables import ReratingRow
from galerne.billing.rating.rows import month_start, period_of, queue_unmatched_script, write_first_ratings_script
from galerne.billing.rating.sums import add_sums_script
from galerne.billing.rating.tables import ClosedPeriodRow, RatingStateRow, UnmatchedUsageRow, UsageRatingRow
from galerne.billing.rating.terms import rater_by, refresh_terms
from galerne.billing.rating.totals import AS_TEXT, AS_TIMES, Times, Totals, rate_totals
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Query, Rows, Script, run_in_session

BATCH = 20_000
_OVERLAP_MS = 2 * 86_400_000
_MONTH = re.compile("20[0-9]{2}-(0[1-9]|1[0-2])")
_WALK = 10  # so many times as many events are looked at as are rated, at most, while others wait to write
_AS_FAR = "SELECT id FROM usage_events WHERE id > :after ORDER BY id LIMIT 1 OFFSET :walk"
_NEW = (
    "SELECT e.id, e.started_at, e.workspace_id, e.key_id, e.organisation_id, e.model, e.endpoint, e.tier, e.zone, "
    "e.input_tokens, e.cached_tokens, e.output_tokens "
    "FROM usage_events e LEFT JOIN usage_ratings r ON r.event_id = e.id AND r.revision = 0 "
    "WHERE e.id > :after{bound} AND r.event_id IS NULL ORDER BY e.id LIMIT :limit"
)


@dataclass(frozen=True, slots=True)
class RatedBatch:
    """What one batch came to: events by state, how many were late; `last_id` is where to go on if there is `more`."""

    rated: int
    unmatched: int
    late: int
    last_id: str
    more: bool


async def rate_batch(session: AsyncSession, clock: Clock, after: str | None = None, limit: int = BATCH) -> RatedBatch:
    """Rate the next events that have no state, by id; `after` None begins two days before the newest rated one.

    Ids begin with the time of the request, so that a run is short; `after=""` looks at all of them, as closing a
    period does: no event is lost because it was written late. Then a batch may have passed only what was rated before:
    it comes to nothing, and yet there is `more`.
    """
    await hold_rating(session)
    begin = await _beginning(session, clock.now()) if after is None else after
    # Whoever begins anywhere walks past what was rated a part at a time, in transactions that hold up nobody.
    found, end = await run_in_session(session, _new(begin, limit, 0 if after is None else limit * _WALK))
    if not found:
        return RatedBatch(0, 0, 0, end or begin, bool(end))
    terms = await refresh_terms(session, {event[4] for event in found}, clock.now())
    version = await newest_version(session)  # first: a version that is written meanwhile is the next batch's
    rater, closed = rater_by(await read_book(session, version=version), terms), await closed_periods(session)
    times = AS_TEXT if isinstance(found[0][1], str) else AS_TIMES
    totals = rate_totals(rater, found, lambda at: period_of(at, closed), times)
    waiting = await run_in_session(session, _write_script(found, totals, times, (version, clock.now())))
    newest = found[-1][0]
    behind = RatingStateRow.last_event_id < newest
    await session.execute(update(RatingStateRow).where(behind).values(last_event_id=newest))
    late = sum(hour.is_late for _, _, hour in totals.costs)
    full = len(found) == limit
    return RatedBatch(len(found) - waiting, waiting, late, newest if full else end or newest, full or bool(end))


def _new(after: str, limit: int, walk: int) -> Script[tuple[Rows, str]]:
    """Events that have no state, and the last id that was looked at if that was not the end."""
    ends = (yield Query(_AS_FAR, {"after": after, "walk": walk - 1})) if walk else []
    values = {"after": after, "limit": limit} | ({"end": ends[0][0]} if ends else {})
    found = yield Query(_NEW.format(bound=" AND e.id <= :end" if ends else ""), values)
    return found, ends[0][0] if ends else ""


def _write_script(found: Rows, totals: Totals, times: Times, how: tuple[int, datetime]) -> Script[int]:
    """Write what became of events; how many of them have no price. `how`: the book's version, and when."""
    version, at = how
    yield from write_first_ratings_script(found, totals.costs, version, times.write(at))
    unpriced = [event for event, (nano, _, _) in zip(found, totals.costs, strict=True) if nano is None]
    waiting = [UsedTokens(event[0], times.read(event[1]), *event[2:]) for event in unpriced]
    yield from queue_unmatched_script(waiting, at)
    yield from add_sums_script(totals.sums)
    return len(waiting)


def sums_of(
    usage: Iterable[RatedUsage], period_by_event: dict[str, str], sign: int = 1
) -> dict[tuple[str, BucketKey], Sum]:
    """Rated usage summed for the buckets of the periods in which its events are billed; `sign` -1 takes it away."""
    parts: dict[str, list[RatedUsage]] = {}
    for each in usage:
        parts.setdefault(period_by_event[each.event_id], []).append(each)
    return {
        (period, key): amounts if sign == 1 else Sum(*(sign * amount for amount in amounts))
        for period, part in parts.items()
        for key, amounts in buckets_of(part).items()
    }


async def hold_rating(session: AsyncSession) -> None:
    """Be the only one who rates, until the transaction ends."""
    await session.execute(update(RatingStateRow).values(runs=RatingStateRow.runs + 1))


async def rating_counts(session: AsyncSession) -> dict[str, int]:
    """How many events are in each state, and how many have none yet (`waiting`); together they are all `events`."""
    row = UsageRatingRow
    last = select(row.event_id, func.max(row.revision).label("revision")).group_by(row.event_id).subquery()
    newest = (last.c.event_id == row.event_id) & (last.c.revision == row.revision)
    states = await session.execute(select(row.state, func.count()).join(last, newest).group_by(row.state))
    counts: dict[str, int] = {"rated": 0, "unmatched": 0, "voided": 0}
    for state, count in states:
        counts[state] = count
    events = int((await session.execute(text("SELECT count(*) FROM usage_events"))).scalar_one())
    return counts | {"waiting": events - sum(counts.values()), "events": events}


async def unmatched_usage(session: AsyncSession, limit: int = 100) -> list[tuple[str, int, datetime]]:
    """The queue of what has no price: model, number of events, and since when; the most in front."""
    row = UnmatchedUsageRow
    query = select(row.model, func.count(), func.min(row.occurred_at)).group_by(row.model)
    rows = await session.execute(query.order_by(func.count().desc(), row.model).limit(limit))
    return [(model, count, since) for model, count, since in rows]


async def close_period(session: AsyncSession, actor: Actor, period: str, clock: Clock) -> None:
    """Close a month (`2026-11`), journalled: what comes for it later is billed in the next open one. Once is enough.

    Raises `BadRequest` for what is no month, `Conflict` for one that has not begun, and while a re-rating is under way:
    what it changes would be billed in two months.
    """
    now = clock.now()
    if not _MONTH.fullmatch(period):
        raise BadRequest(f"'{period[:20]}' is no month; write one as 2026-11.", param="period")
    if month_start(period) > now:
        raise Conflict(f"{period} has not begun.", code="period_open", param="period")
    await hold_rating(session)
    if await session.scalar(select(ReratingRow.digest).where(ReratingRow.finished_at.is_(None)).limit(1)):
        raise Conflict(
            "A re-rating is under way: a worker goes on with it (`galerne worker run re-rating`); then close again.",
            code="rerating_under_way",
        )
    if period not in await closed_periods(session):
        session.add(ClosedPeriodRow(period=period, closed_at=now))
        await session.flush()
        resource = f"period:{period}"
        await append(session, [Entry(action="rating.close", actor=actor, resource=resource, outcome="done", at=now)])


async def closed_periods(session: AsyncSession) -> frozenset[str]:
    """The months that are closed."""
    return frozenset(await session.scalars(select(ClosedPeriodRow.period)))


async def _beginning(session: AsyncSession, now: datetime) -> str:
    last = (await session.execute(select(RatingStateRow.last_event_id))).scalar_one()
    # No later than now: a request whose gateway's clock was ahead must not hide those of the others.
    newest_ms = min(int(last[:12] or "0", 16), int(now.timestamp() * 1000))
    return f"{max(0, newest_ms - _OVERLAP_MS):012x}" if last else ""
