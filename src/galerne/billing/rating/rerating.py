"""Re-rating: what other prices would have cost, shown, agreed to by a digest, and applied in batches.

Showing writes nothing and holds nothing. Once the prices are written, what was used is rated again batch by batch, each
a transaction of its own that also says how far it is: killed anywhere, it goes on where it was.
"""

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.book import PriceBook
from galerne.billing.prices.changes import PriceChange, change_prices, check_change, check_factors, worked_out
from galerne.billing.prices.reading import newest_version, read_book
from galerne.billing.rating.rater import Rating
from galerne.billing.rating.rerating_tables import ReratingRow
from galerne.billing.rating.revisions import (
    CURRENT,
    TIMES,
    Standing,
    changed_of,
    correction_of,
    only_of,
    rated_before,
    rated_by,
    revise,
    standing_of,
)
from galerne.billing.rating.rows import month_start, next_month
from galerne.billing.rating.service import hold_rating
from galerne.billing.rating.terms import rater_of
from galerne.governance import SYSTEM, Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Database, Ids, TooLarge, UtcTime

BATCH = 2000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DIGEST = re.compile("([0-9a-f]{1,16})-[0-9a-f]{64}")
_MONTH = re.compile("20[0-9]{2}-(0[1-9]|1[0-2])")
_PAGE = " ORDER BY e.id LIMIT :limit"
_WINDOW = text(
    CURRENT + "AND e.started_at >= :since AND e.started_at < :until AND e.id > :after AND r.rated_at <= :as_of"
    " AND (:organisation = '' OR e.organisation_id = :organisation)" + _PAGE
).bindparams(*(bindparam(name, type_=UtcTime()) for name in ("since", "until", "as_of")))
_EARLIER = text(CURRENT + "AND e.started_at >= :since AND e.id > :after AND r.version < :version" + _PAGE).bindparams(
    bindparam("since", type_=UtcTime())
)

Opens = Callable[[], AbstractAsyncContextManager[AsyncSession]]


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """What one organisation's use of one line costs before and after, in nano-units of `currency`."""

    organisation_id: str
    model_id: str
    token_class: str
    service_tier: str
    zone: str
    batch: bool
    currency: str
    before_nano: int
    after_nano: int

    @property
    def difference_nano(self) -> int:
        """By how much it becomes dearer."""
        return self.after_nano - self.before_nano


@dataclass(frozen=True, slots=True)
class Part:
    """What of the past to look at: a month (`2026-11`) by when use happened, an organisation; None for all.

    `most`: `TooLarge` is raised rather than look at more events.
    """

    period: str | None = None
    organisation_id: str | None = None
    most: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all that would change."""
        return self.period is None and self.organisation_id is None


WHOLE = Part()
"""All that would change."""


@dataclass(frozen=True, slots=True)
class Rerating:
    """What other prices would change of what was rated until `as_of`: the lines that differ, how many events.

    `basis` is a hash over the prices and the book that they are added to.
    """

    differences: tuple[Difference, ...]
    events: int
    changed: int
    as_of: datetime
    basis: str
    is_whole: bool = True

    @property
    def digest(self) -> str:
        """What to agree to exactly that by: the time up to which was looked, and a SHA-256 over the report."""
        rows = [[getattr(each, name) for name in Difference.__slots__] for each in self.differences]
        content = json.dumps([self.basis, rows, self.events, self.changed]).encode()
        return f"{(self.as_of - _EPOCH) // _MICROSECOND:x}-{sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReratingRun:
    """How far a re-rating is: of `events` that were shown `changed` change; `applied` have by now.

    More are applied than were shown where something was rated by the prices of before after it was shown.
    """

    digest: str
    version: int
    events: int
    changed: int
    applied: int
    started_at: datetime
    finished_at: datetime | None


@dataclass(slots=True)
class _Sums:
    nano: dict[tuple[Any, ...], list[int]] = field(default_factory=dict[tuple[Any, ...], list[int]])
    events: int = 0
    changed: int = 0

    def add(self, found: list[Standing], before: Rating, after: Rating) -> None:
        self.events += len(found)
        self.changed += len(changed_of(found, before, after))
        for index, usage in ((0, before.usage), (1, after.usage)):
            for each in usage:
                key = (each.organisation_id, *each.line[:5], each.currency)
                self.nano.setdefault(key, [0, 0])[index] += each.nano

    def differences(self) -> tuple[Difference, ...]:
        rows = (Difference(*key, *amounts) for key, amounts in self.nano.items() if amounts[0] != amounts[1])
        return tuple(sorted(rows))


async def preview_rerating(
    session: AsyncSession, change: PriceChange, clock: Clock, part: Part = WHOLE, as_of: datetime | None = None
) -> Rerating:
    """What it would change if these prices had counted from when they say; nothing is written.

    Raises `BadRequest` for prices that do not begin in the past, `TooLarge` where `part` sets a bound.
    """
    return await _previewed(lambda: nullcontext(session), change, clock, part, as_of)


async def preview_in_pages(
    database: Database, change: PriceChange, clock: Clock, part: Part = WHOLE, as_of: datetime | None = None
) -> Rerating:
    """The same, each page in a transaction of its own, so that a long look keeps nobody from anything."""
    return await _previewed(database.reading, change, clock, part, as_of)


async def begin_rerating(
    session: AsyncSession, actor: Actor, change: PriceChange, agreed: tuple[Rerating, str], ids: Ids, clock: Clock
) -> ReratingRun:
    """Write the prices as a version that counts from when it says, journalled; `continue_rerating` does the rest.

    `agreed` is the report as it is now and the digest of what was shown: `Conflict` unless they are of the same.
    Begun before, it stays as it is.
    """
    report, digest = agreed
    await hold_rating(session)
    before = await find_rerating(session, digest)
    if before is not None:
        return before
    _, since, basis = await _proposed(session, change, clock)
    if not report.is_whole or report.digest != digest or report.basis != basis:
        raise Conflict("The report has changed since it was shown; look at it again.", code="rerating_changed")
    now, written = clock.now(), await change_prices(session, actor, change, ids, clock)
    row = ReratingRow(
        digest=digest,
        version=written.number,
        since=since,
        events=report.events,
        changed=report.changed,
        cursor="",
        applied=0,
        started_at=now,
        finished_at=None,
    )
    session.add(row)
    await session.flush()
    detail: dict[str, str | int | bool | None] = {"digest": digest, "events": report.changed}
    await append(session, [_entry("rating.rerate", actor, written.number, now, detail)])
    return _run(row)


async def continue_rerating(session: AsyncSession, digest: str, clock: Clock, limit: int = BATCH) -> ReratingRun:
    """Rate the next events of a re-rating again; once none is left it is finished, which is journalled.

    What was rated by its prices already, or by later ones, is left as it is.
    """
    await hold_rating(session)
    row = await session.get_one(ReratingRow, digest, with_for_update=True, populate_existing=True)
    if row.finished_at is not None:
        return _run(row)
    values = {"since": row.since, "after": row.cursor, "version": row.version, "limit": limit}
    found = await standing_of(session, await session.execute(_EARLIER.columns(**TIMES), values))
    if found:
        row.cursor = found[-1].used.event_id
        row.applied += await _rated_again(session, found, row.version, clock)
    else:
        row.finished_at = now = clock.now()
        detail: dict[str, str | int | bool | None] = {"digest": digest, "events": row.applied, "agreed": row.changed}
        await append(session, [_entry("rating.rerated", SYSTEM, row.version, now, detail)])
    await session.flush()
    return _run(row)


async def find_rerating(session: AsyncSession, digest: str) -> ReratingRun | None:
    """The re-rating that was begun under this digest."""
    row = await session.get(ReratingRow, digest)
    return None if row is None else _run(row)


async def list_reratings(session: AsyncSession, *, unfinished: bool = False) -> list[ReratingRun]:
    """Re-ratings that were begun, newest first, or the unfinished ones, oldest first."""
    query = select(ReratingRow)
    if unfinished:
        query = query.where(ReratingRow.finished_at.is_(None)).order_by(ReratingRow.version)
    else:
        query = query.order_by(ReratingRow.version.desc()).limit(1000)
    return [_run(row) for row in await session.scalars(query)]


def agreed_until(digest: str) -> datetime:
    """Up to when the report of this digest looked; `Conflict` for what is no digest."""
    found = _DIGEST.fullmatch(digest)
    try:
        if found is not None:
            return _EPOCH + int(found[1], 16) * _MICROSECOND
    except OverflowError:
        pass
    raise Conflict("This is the digest of no report; look at it again.", code="rerating_changed")


async def _previewed(opens: Opens, change: PriceChange, clock: Clock, part: Part, as_of: datetime | None) -> Rerating:
    until, sums = as_of or clock.now(), _Sums()
    async with opens() as session:
        proposed, since, basis = await _proposed(session, change, clock)
    async for page in _compared(opens, proposed, since, until, part):
        sums.add(*page)
        if part.most is not None and sums.events > part.most:
            raise TooLarge(
                f"More than {part.most:,} events would be rated again: look at one month or organisation, or use"
                " `galerne rating rerate`.",
                code="rerating_too_large",
            )
    return Rerating(sums.differences(), sums.events, sums.changed, until, basis, part.is_whole)


async def _proposed(session: AsyncSession, change: PriceChange, clock: Clock) -> tuple[PriceBook, datetime, str]:
    now = clock.now()
    begins = [each.effective_from for each in (*change.rates, *change.modifiers)]
    if not change.retroactive or not begins or any(begin is None or begin > now for begin in begins):
        raise BadRequest("Prices to re-rate by begin in the past; say from when.", param="effective_from")
    check_change(change, now)
    newest = await newest_version(session)
    book = await read_book(session)
    written = worked_out(change, newest + 1, Ids(), now)
    since = min(begin for begin in begins if begin is not None)
    basis = sha256(msgspec.json.encode([newest, change], order="sorted")).hexdigest()
    proposed = book.plus(written.rates, written.modifiers)
    check_factors(proposed)
    return proposed, since, basis


async def _compared(
    opens: Opens, book: PriceBook, since: datetime, as_of: datetime, part: Part
) -> AsyncGenerator[tuple[list[Standing], Rating, Rating]]:
    first, until = _months(part.period)
    values: dict[str, Any] = {"since": max(since, first), "until": until, "as_of": as_of, "limit": BATCH, "after": ""}
    values["organisation"] = part.organisation_id or ""
    while True:
        async with opens() as session:
            found = await standing_of(session, await session.execute(_WINDOW.columns(**TIMES), values))
            if not found:
                return
            values["after"] = found[-1].used.event_id
            live = [each for each in found if each.state != "voided"]
            rater = await rater_of(session, book, {each.used.organisation_id for each in live})
            before = await rated_before(session, live)
        yield live, before, rated_by(rater, live)


async def _rated_again(session: AsyncSession, found: list[Standing], version: int, clock: Clock) -> int:
    book = await read_book(session, version=version)
    live = [each for each in found if each.state != "voided"]
    rater = await rater_of(session, book, {each.used.organisation_id for each in live})
    after = rated_by(rater, live)
    changed = changed_of(live, await rated_before(session, live), after)
    for number, group in groupby(sorted(changed, key=correction_of), key=correction_of):
        part = list(group)
        again = only_of(after, part)
        await revise(session, part, [each.used for each in part], again, (version, number, None), clock)
    return len(changed)


def _months(period: str | None) -> tuple[datetime, datetime]:
    if period is None:
        return _EPOCH, _NEVER
    if not _MONTH.fullmatch(period):
        raise BadRequest(f"'{period[:20]}' is no month; write one as 2026-11.", param="period")
    return month_start(period), month_start(next_month(period))


def _entry(action: str, actor: Actor, version: int, at: datetime, detail: dict[str, str | int | bool | None]) -> Entry:
    return Entry(action=action, actor=actor, resource=f"prices:{version}", outcome="done", at=at, detail=detail)


def _run(row: ReratingRow) -> ReratingRun:
    return ReratingRun(
        digest=row.digest,
        version=row.version,
        events=row.events,
        changed=row.changed,
        applied=row.applied,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
