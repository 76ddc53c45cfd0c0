"""What was rated and counts otherwise now: corrected, voided, priced later, or re-rated under other prices.

Nothing is overwritten. An event gets a further revision, and what that adds or takes away is billed in the first period
that is open, at the hour of the event.
"""

import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.price_book import PriceBook
from galerne.billing.price_changes import PriceChange, change_prices, check_change, check_factors, worked_out
from galerne.billing.price_reading import newest_version, read_book
from galerne.billing.price_terms import rater_of
from galerne.billing.rating import (
    MOST_REQUEST_NANO,
    BucketKey,
    RatedUsage,
    Rater,
    Rating,
    RatingState,
    Sum,
    UsedTokens,
    billable,
)
from galerne.billing.rating_rows import Revision, period_of, queue_unmatched, write_revisions
from galerne.billing.rating_service import closed_periods, hold_rating, sums_of
from galerne.billing.rating_tables import UnmatchedUsageRow, UsageCorrectionRow
from galerne.billing.usage_sums import add_sums, new_sums
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Ids, NotFound, UtcTime
from galerne.ledger import amount_text

_BATCH = 2000
MOST_TOKENS = 2**40
"""Of one class, that an event can be corrected to."""
_CURRENT = """
SELECT e.id, e.started_at, e.workspace_id, e.key_id, e.organisation_id, e.model, e.endpoint, e.tier, e.zone,
  e.input_tokens, e.cached_tokens, e.output_tokens, r.revision, r.state, r.version, r.correction
FROM usage_ratings r JOIN usage_events e ON e.id = r.event_id
WHERE NOT EXISTS (SELECT 1 FROM usage_ratings n WHERE n.event_id = r.event_id AND n.revision > r.revision)
"""
_ORDER = " ORDER BY e.id LIMIT :limit"
_TIMES = {"started_at": UtcTime()}
_BY_ID = text(_CURRENT + "AND e.id IN :ids ORDER BY e.id").bindparams(bindparam("ids", expanding=True))
_SINCE = text(_CURRENT + "AND e.started_at >= :since AND e.id > :after" + _ORDER).bindparams(
    bindparam("since", type_=UtcTime())
)
_CORRECTIONS = UsageCorrectionRow


class Counts(NamedTuple):
    """What an event shall count as."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Standing(NamedTuple):
    """How an event was rated last: what it counted as, corrections in, by which version of the price book."""

    used: UsedTokens
    revision: int
    state: RatingState
    version: int
    correction: int


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
class Rerating:
    """What other prices would change: the lines that differ, how many events, and a digest to agree to exactly that."""

    differences: tuple[Difference, ...]
    events: int
    changed: int

    @property
    def digest(self) -> str:
        """SHA-256 of the report, 64 hexadecimal digits."""
        rows = [[getattr(each, name) for name in Difference.__slots__] for each in self.differences]
        return sha256(json.dumps([rows, self.events, self.changed]).encode()).hexdigest()


async def correct_usage(
    session: AsyncSession, actor: Actor, event_id: str, counts: Counts | None, reason: str, clock: Clock
) -> Standing:
    """Have an event count as something else from now on, or as nothing (`counts` None: voided); journalled.

    The event and earlier corrections stay. Raises `NotFound` for an event that is not there or not rated yet, and
    `BadRequest` for what cannot be.
    """
    if counts is not None and not 0 <= min(counts) <= max(counts) <= MOST_TOKENS:
        raise BadRequest(f"A count of tokens lies between 0 and {MOST_TOKENS}.", param="tokens")
    if not reason.strip():
        raise BadRequest("Say why the usage is corrected.", param="reason")
    await hold_rating(session)
    found = await _standing(session, await session.execute(_BY_ID.columns(**_TIMES), {"ids": [event_id]}))
    if not found:
        raise NotFound(f"There is no rated usage event '{event_id[:64]}'.", code="usage_not_found", param="event")
    before, now = found[0], clock.now()
    number = before.correction + 1
    tokens = counts or Counts(0, 0, 0)
    row = UsageCorrectionRow(
        event_id=event_id, number=number, voided=counts is None, reason=reason, created_at=now, **tokens._asdict()
    )
    session.add(row)
    await session.flush()
    used = UsedTokens(*before.used[:9], *tokens)
    book, version = await read_book(session, version=before.version), before.version
    after = (await rater_of(session, book, {used.organisation_id})).rate([] if counts is None else [used])
    if any(nano > MOST_REQUEST_NANO for nano in after.nano_of.values()):
        most = amount_text(MOST_REQUEST_NANO)
        raise BadRequest(f"So many tokens would cost more than {most}, which no request can.", param="tokens")
    after_state = "voided" if counts is None else None
    (written,) = await _revise(session, [before], [used], after, (version, number, after_state), clock)
    detail: dict[str, str | int | bool | None] = {"reason": reason, "number": number, "voided": counts is None}
    # The customer's own leaf, with the counts: an invoice's proof shows by it what is billed instead.
    detail |= tokens._asdict()
    whose = replace(actor, organisation_id=used.organisation_id)
    await append(session, [_entry("usage.correct", whose, f"usage:{event_id}", now, detail)])
    return Standing(used, written.revision, written.state, version, number)


async def rerate_unmatched(
    session: AsyncSession, clock: Clock, limit: int = _BATCH, after: str = ""
) -> tuple[int, str]:
    """Rate those of the next events in the queue that have a price by now; how many, and the last id that was seen.

    The id is empty once the queue was seen to its end.
    """
    await hold_rating(session)
    row = UnmatchedUsageRow
    query = select(row.event_id).where(row.event_id > after).order_by(row.event_id).limit(limit)
    names = list(await session.scalars(query))
    if not names:
        return 0, ""
    found = await _standing(session, await session.execute(_BY_ID.columns(**_TIMES), {"ids": names}))
    version = await newest_version(session)
    book = await read_book(session, version=version)
    rater = await rater_of(session, book, {each.used.organisation_id for each in found})
    rating = _rated(rater, found)
    matched = [each for each in found if each.used.event_id in rating.nano_of]
    for number, each in groupby(sorted(matched, key=_correction), key=_correction):
        part = list(each)
        await _revise(session, part, [one.used for one in part], _only(rating, part), (version, number, None), clock)
    return len(matched), names[-1] if len(names) == limit else ""


async def preview_rerating(session: AsyncSession, change: PriceChange, clock: Clock) -> Rerating:
    """What it would change if these prices had counted from when they say; nothing is written."""
    proposed, since = await _proposed(session, change, clock)
    sums: dict[tuple[Any, ...], list[int]] = {}
    events = changed = 0
    async for found, before, after in _compared(session, proposed, since):
        events += len(found)
        changed += len(_changed(found, before, after))
        for index, usage in ((0, before.usage), (1, after.usage)):
            for each in usage:
                line = each.line
                key = (each.organisation_id, *line[:5], each.currency)
                sums.setdefault(key, [0, 0])[index] += each.nano
    rows = sorted(Difference(*key, *amounts) for key, amounts in sums.items() if amounts[0] != amounts[1])
    return Rerating(tuple(rows), events, changed)


async def apply_rerating(
    session: AsyncSession, actor: Actor, change: PriceChange, digest: str, ids: Ids, clock: Clock
) -> Rerating:
    """Write the prices as a version that counts from when it says, and re-rate what they change; journalled.

    Raises `Conflict` unless `digest` is that of the report as it is now: what nobody has seen is not applied.
    """
    await hold_rating(session)
    report = await preview_rerating(session, change, clock)
    if report.digest != digest:
        raise Conflict("The report has changed since it was shown; look at it again.", code="rerating_changed")
    _, since = await _proposed(session, change, clock)
    written = await change_prices(session, actor, change, ids, clock)
    book = await read_book(session, version=written.number)
    async for found, before, after in _compared(session, book, since):
        changed = _changed(found, before, after)
        for number, group in groupby(sorted(changed, key=_correction), key=_correction):
            part = list(group)
            again = _only(after, part)
            await _revise(session, part, [each.used for each in part], again, (written.number, number, None), clock)
    detail: dict[str, str | int | bool | None] = {"digest": digest, "events": report.changed}
    await append(session, [_entry("rating.rerate", actor, f"prices:{written.number}", clock.now(), detail)])
    return report


async def _proposed(session: AsyncSession, change: PriceChange, clock: Clock) -> tuple[PriceBook, datetime]:
    now = clock.now()
    begins = [each.effective_from for each in (*change.rates, *change.modifiers)]
    if not change.retroactive or not begins or any(begin is None or begin > now for begin in begins):
        raise BadRequest("Prices to re-rate by begin in the past; say from when.", param="effective_from")
    check_change(change, now)
    book = await read_book(session)
    written = worked_out(change, await newest_version(session) + 1, Ids(), now)
    since = min(begin for begin in begins if begin is not None)
    proposed = book.plus(written.rates, written.modifiers)
    check_factors(proposed)
    return proposed, since


async def _compared(
    session: AsyncSession, book: PriceBook, since: datetime
) -> AsyncGenerator[tuple[list[Standing], Rating, Rating]]:
    last = ""
    while True:
        values = {"since": since, "after": last, "limit": _BATCH}
        found = await _standing(session, await session.execute(_SINCE.columns(**_TIMES), values))
        if not found:
            return
        last = found[-1].used.event_id
        live = [each for each in found if each.state != "voided"]
        rater = await rater_of(session, book, {each.used.organisation_id for each in live})
        yield live, await _before(session, live), _rated(rater, live)


async def _before(session: AsyncSession, found: Sequence[Standing]) -> Rating:
    # By the prices of then: what was rated is worked out again, and taken away exactly.
    whole = Rating()
    rated = sorted((each for each in found if each.state == "rated"), key=lambda each: each.version)
    for version, group in groupby(rated, key=lambda each: each.version):
        part = [each.used for each in group]
        rater = await rater_of(session, await read_book(session, version=version), {u.organisation_id for u in part})
        rating = rater.rate(part)
        whole.usage.extend(rating.usage)
        whole.nano_of.update(rating.nano_of)
    return whole


async def _revise(
    session: AsyncSession,
    before: Sequence[Standing],
    events: Sequence[UsedTokens],
    after: Rating,
    how: tuple[int, int, RatingState | None],
    clock: Clock,
) -> list[Revision]:
    version, correction, state = how
    closed = await closed_periods(session)
    currency_of = {usage.event_id: usage.currency for usage in after.usage}
    revisions = [
        Revision(
            used,
            standing.revision + 1,
            state or ("rated" if used.event_id in after.nano_of else "unmatched"),
            period_of(used.occurred_at, closed),
            version,
            correction,
            after.nano_of.get(used.event_id, 0),
            currency_of.get(used.event_id),
        )
        for standing, used in zip(before, events, strict=True)
    ]
    periods = {each.used.event_id: each.period for each in revisions}
    gone = sums_of((await _before(session, before)).usage, periods, sign=-1)
    await write_revisions(session, revisions, clock.now())
    was = {each.used.event_id for each in before if each.state == "unmatched"}
    now = {each.used.event_id: each.used for each in revisions if each.state == "unmatched"}
    await session.execute(delete(UnmatchedUsageRow).where(UnmatchedUsageRow.event_id.in_(was - now.keys())))
    await queue_unmatched(session, (used for name, used in now.items() if name not in was), clock.now())
    await add_sums(session, new_sums(_together(gone, sums_of(after.usage, periods))))
    return revisions


def _rated(rater: Rater, found: Sequence[Standing]) -> Rating:
    events = [each.used for each in found]
    return billable(rater.rate(events), events)


def _correction(standing: Standing) -> int:
    return standing.correction


def _entry(action: str, actor: Actor, resource: str, at: datetime, detail: dict[str, str | int | bool | None]) -> Entry:
    return Entry(action=action, actor=actor, resource=resource, outcome="done", at=at, detail=detail)


def _together(*parts: dict[tuple[str, BucketKey], Sum]) -> dict[tuple[str, BucketKey], Sum]:
    whole: dict[tuple[str, BucketKey], Sum] = {}
    for part in parts:
        for key, amounts in part.items():
            whole[key] = Sum(*map(sum, zip(whole.get(key, Sum(0, 0, 0)), amounts, strict=True)))
    return whole


def _only(rating: Rating, found: Iterable[Standing]) -> Rating:
    names = {each.used.event_id for each in found}
    nano_of = {name: nano for name, nano in rating.nano_of.items() if name in names}
    return Rating([each for each in rating.usage if each.event_id in names], nano_of)


def _changed(found: Sequence[Standing], before: Rating, after: Rating) -> list[Standing]:
    def by_event(usage: Iterable[RatedUsage]) -> dict[str, list[tuple[object, ...]]]:
        rows: dict[str, list[tuple[object, ...]]] = {}
        for each in usage:
            rows.setdefault(each.event_id, []).append((each.line.token_class, each.nano, each.currency))
        return rows

    old, new = by_event(before.usage), by_event(after.usage)
    return [
        each
        for each in found
        if old.get(each.used.event_id) != new.get(each.used.event_id)
        or (each.used.event_id in before.nano_of) != (each.used.event_id in after.nano_of)
    ]


async def _standing(session: AsyncSession, rows: Iterable[Any]) -> list[Standing]:
    found = [Standing(UsedTokens(*row[:12]), *row[12:]) for row in rows]
    corrected = [each.used.event_id for each in found if each.correction]
    if not corrected:
        return found
    row = _CORRECTIONS
    columns = (row.event_id, row.number, row.input_tokens, row.cached_tokens, row.output_tokens)
    counts = {
        (name, number): tokens
        for name, number, *tokens in await session.execute(select(*columns).where(row.event_id.in_(corrected)))
    }
    return [
        each._replace(used=UsedTokens(*each.used[:9], *counts[each.used.event_id, each.correction]))
        if each.correction
        else each
        for each in found
    ]
