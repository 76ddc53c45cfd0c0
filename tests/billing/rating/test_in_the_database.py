"""Rating on both databases: every event in one state, sums that hold, late, corrected and re-rated usage."""

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from galerne.billing import (
    Counts,
    Match,
    NewRate,
    NewRates,
    PriceChange,
    change_prices,
    close_period,
    correct_usage,
    preview_rerating,
    rate_batch,
    rating_counts,
    rerate_unmatched,
    set_rates,
    unmatched_usage,
)
from galerne.billing.rating import service as rating_service
from galerne.governance import SYSTEM
from galerne.kernel import BadRequest, Conflict, Database, Ids, ManualClock, NotFound
from galerne.metering import UsageEvent, record
from galerne.models import ExternalModel, add_external
from tests.billing.rating.buckets import buckets_in
from tests.billing.rating.rerating import rate_again
from tests.identity.tenants import NOW

PRICES = NewRates(
    currency="EUR",
    input_nano_per_million=3_000_000,
    cached_nano_per_million=1_000_000,
    output_nano_per_million=7_000_000,
)
_numbers = itertools.count(1)


def event(
    model: str = "large", at: datetime = NOW, tokens: tuple[int, int, int] = (10, 5, 2), **how: Any
) -> UsageEvent:
    return UsageEvent(
        id=f"{int(at.timestamp() * 1000):012x}7{next(_numbers):019x}",
        organisation_id="org",
        workspace_id=None,
        key_id="key",
        model=model,
        model_version="1",
        endpoint="chat.completions",
        dialect="openai",
        input_tokens=tokens[0],
        cached_tokens=tokens[1],
        output_tokens=tokens[2],
        estimated=False,
        streamed=False,
        partial=False,
        outcome="completed",
        finish_reason="stop",
        status=200,
        started_at=at,
        queue_ms=0.0,
        ttft_ms=None,
        total_ms=1.0,
        **how,
    )


COST = 10 * 3 + 5 * 1 + 2 * 7


@pytest.fixture
async def clock(database: Database) -> ManualClock:
    clock = ManualClock(NOW)
    async with database.transaction() as session:
        for name in ("large", "small"):
            await add_external(session, SYSTEM, ExternalModel(name=name, url="http://127.0.0.1:9/v1"), clock)
        await set_rates(session, SYSTEM, "large", PRICES, Ids(), clock)
    return clock


async def write(database: Database, *events: UsageEvent) -> None:
    async with database.transaction() as session:
        await record(session, events)


async def rate(database: Database, clock: ManualClock, limit: int = 100) -> list[Any]:
    batches: list[Any] = []
    while not batches or batches[-1].more:
        async with database.transaction() as session:
            batches.append(await rate_batch(session, clock, after=batches[-1].last_id if batches else "", limit=limit))
    return batches


async def billed(database: Database, period: str = "2026-11") -> int:
    async with database.reading() as session:
        return sum(each.nano for each in (await buckets_in(session, period)).values())


async def counts(database: Database) -> dict[str, int]:
    async with database.reading() as session:
        return await rating_counts(session)


async def test_every_event_is_rated_once_however_often_and_in_whatever_batches(
    database: Database, clock: ManualClock
) -> None:
    events = [event(at=NOW + n * timedelta(minutes=7), tier="batch" if n % 2 else "standard") for n in range(20)]
    await write(database, *events[5:])
    await rate(database, clock, limit=4)
    await write(database, *events[:5])  # written late, with ids before those that were rated
    await rate(database, clock)
    await rate(database, clock)
    assert await counts(database) == {"rated": 20, "unmatched": 0, "voided": 0, "waiting": 0, "events": 20}
    assert await billed(database) == 10 * COST + 10 * round(COST / 2)
    async with database.reading() as session:
        buckets = await buckets_in(session, "2026-11", "org")
        states = (await session.execute(text("SELECT sum(nano) FROM usage_ratings"))).scalar_one()
    assert sum(each.nano for each in buckets.values()) == states
    assert len({key.hour for key in buckets}) == 3
    assert {key.line.batch for key in buckets} == {True, False}


async def test_a_batch_that_only_passed_what_was_rated_rates_nothing_and_says_where_to_go_on(
    database: Database, clock: ManualClock
) -> None:
    events = [event(at=NOW + n * timedelta(minutes=7)) for n in range(48)]
    ids = [each.id for each in events]

    async def walked() -> list[tuple[int, int, bool]]:
        return [(each.rated, ids.index(each.last_id), each.more) for each in await rate(database, clock, limit=2)]

    later = (3, 4, 5, 24, 25)  # a batch of two looks at twenty: on to 19, on to 24 when it begins behind 4, and so on
    await write(database, *(each for n, each in enumerate(events[:45]) if n not in later))
    await rate(database, clock)
    await write(database, *(events[n] for n in later))
    assert await walked() == [(2, 4, True), (2, 24, True), (1, 44, True), (0, 44, False)]
    await write(database, *events[45:])
    assert await walked() == [(0, 19, True), (0, 39, True), (2, 46, True), (1, 47, False)]
    assert await counts(database) == {"rated": 48, "unmatched": 0, "voided": 0, "waiting": 0, "events": 48}
    assert await billed(database) == 48 * COST


async def test_a_short_run_finds_what_is_new(database: Database, clock: ManualClock) -> None:
    await write(database, event(), event(at=NOW + timedelta(minutes=1)))
    for expected in (2, 0):
        async with database.transaction() as session:
            assert (await rate_batch(session, clock)).rated == expected


async def test_usage_without_a_price_waits_in_sight_and_is_rated_once_there_is_one(
    database: Database, clock: ManualClock
) -> None:
    later = NOW + timedelta(hours=2)
    await write(database, event(), event("small"), event("small", later))
    (batch,) = await rate(database, clock)
    assert (batch.rated, batch.unmatched) == (1, 2)
    async with database.transaction() as session:
        assert await unmatched_usage(session) == [("small", 2, NOW)]
        assert await rerate_unmatched(session, clock) == (0, "")
        await set_rates(
            session, SYSTEM, "small", replace(PRICES, effective_from=NOW + timedelta(hours=1)), Ids(), clock
        )
        assert await rerate_unmatched(session, clock) == (1, "")
        assert await unmatched_usage(session) == [("small", 1, NOW)]
    assert await counts(database) == {"rated": 2, "unmatched": 1, "voided": 0, "waiting": 0, "events": 3}
    assert await billed(database) == 2 * COST


async def test_what_comes_after_its_month_was_closed_is_billed_in_the_next_open_one(
    database: Database, clock: ManualClock
) -> None:
    async with database.transaction() as session:
        await close_period(session, SYSTEM, "2026-11", clock)
        await close_period(session, SYSTEM, "2026-11", clock)
        clock.current += timedelta(days=30)
        await close_period(session, SYSTEM, "2026-12", clock)
    await write(database, event())
    (batch,) = await rate(database, clock)
    assert batch.late == 1
    assert [await billed(database, period) for period in ("2026-11", "2026-12", "2027-01")] == [0, 0, COST]
    async with database.reading() as session:
        (hour,) = {key.hour for key in await buckets_in(session, "2027-01")}
    assert hour == NOW


async def test_a_correction_counts_and_leaves_the_event_as_it_was(database: Database, clock: ManualClock) -> None:
    one, other = event(), event()
    await write(database, one, other)
    await rate(database, clock)
    async with database.transaction() as session:
        await correct_usage(session, SYSTEM, one.id, Counts(1, 0, 0), "the engine counted twice", clock)
    assert await billed(database) == COST + 3
    async with database.transaction() as session:
        await close_period(session, SYSTEM, "2026-11", clock)
        await correct_usage(session, SYSTEM, one.id, None, "a test", clock)
        await correct_usage(session, SYSTEM, other.id, Counts(0, 0, 1), "a cut stream", clock)
    assert [await billed(database, period) for period in ("2026-11", "2026-12")] == [COST + 3, -3 + 7 - COST]
    assert await counts(database) == {"rated": 1, "unmatched": 0, "voided": 1, "waiting": 0, "events": 2}
    async with database.reading() as session:
        assert (await session.execute(text("SELECT sum(input_tokens) FROM usage_events"))).scalar_one() == 20
    async with database.transaction() as session:
        with pytest.raises(NotFound):
            await correct_usage(session, SYSTEM, "none", None, "why", clock)


async def test_other_prices_are_shown_before_they_are_applied(database: Database, clock: ManualClock) -> None:
    await write(database, event(), event(tier="priority"), event("small"))
    await rate(database, clock)
    clock.current += timedelta(days=1)
    match = Match(token_class="output", model_id="large")
    change = PriceChange(
        rates=(NewRate(match=match, currency="EUR", nano=4_000_000, effective_from=NOW),), retroactive=True
    )
    async with database.transaction() as session:
        report = await preview_rerating(session, change, clock)
    found = [(each.service_tier, each.token_class, each.before_nano, each.after_nano) for each in report.differences]
    assert ("standard", "output", 14, 8) in found
    assert {each.token_class for each in report.differences} == {"output"}
    assert (report.events, report.changed) == (3, 2)
    before = await billed(database)
    with pytest.raises(Conflict):
        async with database.transaction() as session:
            await rate_again(session, change, "0" * 64, Ids(), clock)
    assert await billed(database) == before
    async with database.transaction() as session:
        assert await rate_again(session, change, report.digest, Ids(), clock) == report
    assert await billed(database) == before + sum(each.difference_nano for each in report.differences)
    await write(database, event())  # late, and priced by the same prices
    await rate(database, clock)
    async with database.transaction() as session:
        again = await preview_rerating(session, change, clock)
    assert again.differences == ()
    assert (await counts(database))["waiting"] == 0


async def test_a_retroactive_price_is_refused_outside_a_rerating(database: Database, clock: ManualClock) -> None:
    match = Match(token_class="output")
    change = PriceChange(rates=(NewRate(match=match, currency="EUR", nano=4, effective_from=NOW - timedelta(days=1)),))
    async with database.transaction() as session:
        with pytest.raises(BadRequest, match="past"):
            await change_prices(session, SYSTEM, change, Ids(), clock)


@pytest.mark.parametrize("change", ["UPDATE usage_ratings SET nano = 0", "DELETE FROM usage_ratings"])
async def test_the_database_itself_keeps_what_was_rated(database: Database, clock: ManualClock, change: str) -> None:
    await write(database, event())
    await rate(database, clock)
    with pytest.raises(Exception, match="append-only"):
        async with database.transaction() as session:
            await session.execute(text(change))


async def test_a_price_set_while_a_batch_is_rated_is_not_what_the_batch_was_rated_by(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.is_sqlite:
        return  # one writer at a time
    used = event(at=NOW + timedelta(hours=1))
    await write(database, used)
    clock = ManualClock(NOW + timedelta(minutes=30))
    read = rating_service.read_book

    async def read_then_change(session: Any, **how: Any) -> Any:
        book = await read(session, **how)
        async with database.transaction() as other:
            dearer = replace(PRICES, input_nano_per_million=9_000_000, effective_from=None)
            await set_rates(other, SYSTEM, "large", dearer, Ids(), clock)
        return book

    with monkeypatch.context() as patched:
        patched.setattr(rating_service, "read_book", read_then_change)
        await rate(database, clock)
    assert await billed(database) == COST
    async with database.transaction() as session:
        await correct_usage(session, SYSTEM, used.id, None, "a mistake", clock)
    assert await billed(database) == 0


async def test_a_request_with_a_time_far_ahead_hides_no_other_from_the_next_run(
    database: Database, clock: ManualClock
) -> None:
    await write(database, event(at=NOW + timedelta(days=30)))
    await rate(database, clock)
    await write(database, event())
    async with database.transaction() as session:
        assert (await rate_batch(session, clock)).rated == 1


async def test_a_request_that_counts_nonsense_waits_in_sight_and_stops_no_other(
    database: Database, clock: ManualClock
) -> None:
    absurd, other = event(tokens=(2**60, 0, 0)), event()
    await write(database, absurd, other)
    (batch,) = await rate(database, clock)
    assert (batch.rated, batch.unmatched) == (1, 1)
    async with database.transaction() as session:
        assert await rerate_unmatched(session, clock) == (0, "")
        found = await correct_usage(session, SYSTEM, absurd.id, Counts(10, 5, 2), "the engine counted wrongly", clock)
        assert found.state == "rated"
        assert await unmatched_usage(session) == []
    assert await billed(database) == 2 * COST
