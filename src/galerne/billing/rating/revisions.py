"""What was rated and counts otherwise now: corrected, voided, priced later, or re-rated under other prices.

Nothing is overwritten. An event gets a further revision, and what that adds or takes away is billed in the first period
that is open, at the hour of the event.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.reading import newest_version, read_book
from galerne.billing.rating.rater import (
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
from galerne.billing.rating.rows import Revision, period_of, queue_unmatched_script, write_revisions_script
from galerne.billing.rating.service import closed_periods, hold_rating, sums_of
from galerne.billing.rating.sums import add_sums_script, new_sums
from galerne.billing.rating.tables import UnmatchedUsageRow, UsageCorrectionRow
from galerne.billing.rating.terms import rater_of
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, NotFound, UtcTime, run_in_session
from galerne.ledger import amount_text

_BATCH = 2000
MOST_TOKENS = 2**40
"""Of one class, that an event can be corrected to."""
CURRENT = """
SELECT e.id, e.started_at, e.workspace_id, e.key_id, e.organisation_id, e.model, e.endpoint, e.tier, e.zone,
  e.input_tokens, e.cached_tokens, e.output_tokens, r.revision, r.state, r.version, r.correction
FROM usage_ratings r JOIN usage_events e ON e.id = r.event_id
WHERE NOT EXISTS (SELECT 1 FROM usage_ratings n WHERE n.event_id = r.event_id AND n.revision > r.revision)
"""
"""Each event with the revision that counts."""
TIMES = {"started_at": UtcTime()}
"""The types of its columns."""
_BY_ID = text(CURRENT + "AND e.id IN :ids ORDER BY e.id").bindparams(bindparam("ids", expanding=True))
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
    found = await standing_of(session, await session.execute(_BY_ID.columns(**TIMES), {"ids": [event_id]}))
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
    (written,) = await revise(session, [before], [used], after, (version, number, after_state), clock)
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
    found = await standing_of(session, await session.execute(_BY_ID.columns(**TIMES), {"ids": names}))
    version = await newest_version(session)
    book = await read_book(session, version=version)
    rater = await rater_of(session, book, {each.used.organisation_id for each in found})
    rating = rated_by(rater, found)
    matched = [each for each in found if each.used.event_id in rating.nano_of]
    for number, each in groupby(sorted(matched, key=correction_of), key=correction_of):
        part = list(each)
        await revise(session, part, [one.used for one in part], only_of(rating, part), (version, number, None), clock)
    return len(matched), names[-1] if len(names) == limit else ""


async def rated_before(session: AsyncSession, found: Sequence[Standing]) -> Rating:
    """What these events were rated at: by the prices of then, worked out again, so that it is taken away exactly."""
    whole = Rating()
    rated = sorted((each for each in found if each.state == "rated"), key=lambda each: each.version)
    for version, group in groupby(rated, key=lambda each: each.version):
        part = [each.used for each in group]
        rater = await rater_of(session, await read_book(session, version=version), {u.organisation_id for u in part})
        rating = rater.rate(part)
        whole.usage.extend(rating.usage)
        whole.nano_of.update(rating.nano_of)
    return whole


async def revise(
    session: AsyncSession,
    before: Sequence[Standing],
    events: Sequence[UsedTokens],
    after: Rating,
    how: tuple[int, int, RatingState | None],
    clock: Clock,
) -> list[Revision]:
    """Give events a further revision each, as the rating `after` says, and move the sums; what was written.

    `how` is the price book's version, the number of the correction, and a state where it is not the rating's to say.
    """
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
    gone = sums_of((await rated_before(session, before)).usage, periods, sign=-1)
    await run_in_session(session, write_revisions_script(revisions, clock.now()))
    was = {each.used.event_id for each in before if each.state == "unmatched"}
    now = {each.used.event_id: each.used for each in revisions if each.state == "unmatched"}
    await session.execute(delete(UnmatchedUsageRow).where(UnmatchedUsageRow.event_id.in_(was - now.keys())))
    unpriced = [used for name, used in now.items() if name not in was]
    await run_in_session(session, queue_unmatched_script(unpriced, clock.now()))
    await run_in_session(session, add_sums_script(new_sums(_together(gone, sums_of(after.usage, periods)))))
    return revisions


def rated_by(rater: Rater, found: Sequence[Standing]) -> Rating:
    """What these events are rated at by a rater, without those that would cost what no request can."""
    events = [each.used for each in found]
    return billable(rater.rate(events), events)


def correction_of(standing: Standing) -> int:
    """By which correction it counts."""
    return standing.correction


def _entry(action: str, actor: Actor, resource: str, at: datetime, detail: dict[str, str | int | bool | None]) -> Entry:
    return Entry(action=action, actor=actor, resource=resource, outcome="done", at=at, detail=detail)


def _together(*parts: dict[tuple[str, BucketKey], Sum]) -> dict[tuple[str, BucketKey], Sum]:
    whole: dict[tuple[str, BucketKey], Sum] = {}
    for part in parts:
        for key, amounts in part.items():
            whole[key] = Sum(*map(sum, zip(whole.get(key, Sum(0, 0, 0)), amounts, strict=True)))
    return whole


def only_of(rating: Rating, found: Iterable[Standing]) -> Rating:
    """Of a rating what these events were rated at."""
    names = {each.used.event_id for each in found}
    nano_of = {name: nano for name, nano in rating.nano_of.items() if name in names}
    return Rating([each for each in rating.usage if each.event_id in names], nano_of)


def changed_of(found: Sequence[Standing], before: Rating, after: Rating) -> list[Standing]:
    """Those of the events that two ratings rate otherwise."""

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


async def standing_of(session: AsyncSession, rows: Iterable[Any]) -> list[Standing]:
    """How events stand, from rows as `CURRENT` selects them, corrections in."""
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
