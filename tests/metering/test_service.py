"""Metering on real databases: each request is counted once, whatever is delivered how often and in which order."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from galerne.kernel import BadRequest, Conflict, Database
from galerne.metering import Totals, UsageEvent, UsageFilter, record, usage
from galerne.metering.tables import UsageEventRow
from tests.journal.entries import undone
from tests.metering.events import NOON, batches, event

several_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def fill(database: Database, *events: UsageEvent) -> None:
    async with database.transaction() as session:
        await record(session, events)


@several_examples
@given(batch=batches, data=st.data())
async def test_permuted_split_and_repeated_deliveries_leave_the_totals_unchanged(
    database: Database, batch: list[UsageEvent], data: st.DataObject
) -> None:
    deliveries = data.draw(st.permutations(batch + data.draw(st.lists(st.sampled_from(batch)))))
    cut = data.draw(st.integers(0, len(deliveries)))
    async with undone(database) as session:
        new = await record(session, deliveries[:cut]) | await record(session, deliveries[cut:])
        again = await record(session, batch)
        page = await usage(session, "org-1", limit=1000)
    assert new == {one.id for one in batch}
    assert again == frozenset()
    assert page.totals == Totals(
        requests=len(batch),
        input_tokens=sum(one.input_tokens for one in batch),
        cached_tokens=sum(one.cached_tokens for one in batch),
        output_tokens=sum(one.output_tokens for one in batch),
    )
    assert sum(sums.requests for _, sums in page.by_model) == len(batch)
    assert page.events == sorted(batch, key=lambda one: (one.started_at, one.id), reverse=True)


async def test_other_content_under_a_known_id_is_a_conflict_and_nothing_of_the_call_is_written(
    database: Database,
) -> None:
    await fill(database, event(1))
    async with database.transaction() as session:
        with pytest.raises(Conflict):
            await record(session, [event(0), event(1, output_tokens=6), event(2)])
        # The caller may go on in its transaction: only this call was undone.
        await record(session, [event(3)])
    async with database.transaction() as session:
        page = await usage(session, "org-1")
    assert page.events == [event(3), event(1)]


async def test_two_connections_that_record_the_same_requests_count_them_once(database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False))
    some = [event(number) for number in range(40)]
    try:
        await asyncio.gather(
            *(fill(where, *order) for order in (some, some[::-1], some[10:30]) for where in (database, other))
        )
    finally:
        await other.close()
    async with database.transaction() as session:
        assert (await usage(session, "org-1")).totals.requests == 40


async def test_recording_nothing_is_fine_and_large_batches_pass(database: Database) -> None:
    await fill(database)
    await fill(database, *(event(number) for number in range(3000)))
    await fill(database, *(event(number) for number in range(3001)))
    async with database.transaction() as session:
        assert (await usage(session, "org-1", limit=1)).totals.requests == 3001


@pytest.mark.parametrize("statement", ["UPDATE usage_events SET output_tokens = 0", "DELETE FROM usage_events"])
async def test_the_database_refuses_to_rewrite(database: Database, statement: str) -> None:
    await fill(database, event(1))
    with pytest.raises(DBAPIError):
        async with database.transaction() as session:
            await session.execute(text(statement))
    async with database.transaction() as session:
        assert (await usage(session, "org-1")).events == [event(1)]


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": -1},
        {"cached_tokens": -1},
        {"output_tokens": -1},
        {"queue_ms": -1.0},
        {"ttft_ms": -1.0},
        {"total_ms": -1.0},
        {"outcome": "forgotten"},
        {"id": "short"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_the_database_refuses_what_cannot_be(database: Database, change: dict[str, object]) -> None:
    fields = {name: getattr(event(1), name) for name in UsageEvent.__struct_fields__} | change
    with pytest.raises(DBAPIError):
        async with database.transaction() as session:
            await session.execute(insert(UsageEventRow).values(**fields))


async def test_the_database_says_when_a_row_was_written(database: Database) -> None:
    await fill(database, event(1))
    async with database.transaction() as session:
        row = await session.get_one(UsageEventRow, event(1).id)
        clock = (await session.execute(text("SELECT CURRENT_TIMESTAMP"))).scalar_one()
    assert row.recorded_at.tzinfo is not None
    assert str(clock)[:10] == row.recorded_at.isoformat()[:10]


async def test_an_organisation_sees_its_own_usage_only(database: Database) -> None:
    await fill(database, event(1), event(2, organisation_id="org-2"))
    async with database.transaction() as session:
        ours = await usage(session, "org-1")
        everything = await usage(session, None)
        with pytest.raises(BadRequest):
            await usage(session, "org-1", after=event(2).id)
    assert ours.events == [event(1)]
    assert ours.totals.requests == 1
    assert everything.totals.requests == 2


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (UsageFilter(), [3, 2, 1, 0]),
        (UsageFilter(workspace_id="space"), [1]),
        (UsageFilter(key_id="key-2"), [2]),
        (UsageFilter(model="minilm"), [3]),
        (UsageFilter(since=NOON + timedelta(seconds=1), until=NOON + timedelta(seconds=3)), [2, 1]),
        (UsageFilter(model="minilm", key_id="key-2"), []),
    ],
)
async def test_filters_narrow_sums_and_events_alike(
    database: Database, wanted: UsageFilter, numbers: list[int]
) -> None:
    some = [event(0), event(1, workspace_id="space"), event(2, key_id="key-2"), event(3, model="minilm")]
    await fill(database, *some)
    async with database.transaction() as session:
        page = await usage(session, "org-1", wanted)
    assert page.events == [some[number] for number in numbers]
    assert page.totals == Totals(
        requests=len(numbers),
        input_tokens=10 * len(numbers),
        cached_tokens=3 * len(numbers),
        output_tokens=5 * len(numbers),
    )


async def test_pages_go_through_every_event_once_even_when_times_are_equal(database: Database) -> None:
    some = [event(number, started_at=NOON + timedelta(seconds=number // 3)) for number in range(10)]
    await fill(database, *some)
    found: list[UsageEvent] = []
    after: str | None = None
    async with database.transaction() as session:
        for _ in range(4):
            page = await usage(session, "org-1", limit=3, after=after)
            found, after = found + page.events, page.next_after
            assert page.totals.requests == 10
    assert found == some[::-1]
    assert after is None


async def test_models_come_in_order_of_their_tokens(database: Database) -> None:
    await fill(database, event(1, model="small"), event(2, model="large", output_tokens=100), event(3, model="small"))
    async with database.transaction() as session:
        page = await usage(session, "org-1")
    assert [(model, sums.requests, sums.total_tokens) for model, sums in page.by_model] == [
        ("large", 1, 113),
        ("small", 2, 36),
    ]
