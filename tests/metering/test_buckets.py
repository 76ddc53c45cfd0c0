"""Buckets: every event of the range is in exactly one, at the place where its time says."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galerne.kernel import BadRequest, Database
from galerne.metering import UsageEvent, record, usage_by_bucket
from galerne.metering.buckets import WIDTH_S, BucketQuery, Width, slices
from tests.journal.entries import undone
from tests.metering.events import NOON, event
from tests.metering.test_service import fill

NOON_S = int(NOON.timestamp())


def query(start_s: int, end_s: int, width: Width = "1h", limit: int = 1440, **more: object) -> BucketQuery:
    fields = {"organisation_id": "org-1", "kind": "completions", **more}
    return BucketQuery(start_s=start_s, end_s=end_s, width=width, limit=limit, **fields)  # type: ignore[arg-type] # brief


@given(
    start_s=st.integers(0, 2**32),
    length_s=st.integers(0, 200_000),
    width=st.sampled_from(["1m", "1h", "1d"]),
    limit=st.integers(1, 50),
)
def test_pages_of_slices_cover_the_range_without_gap_or_overlap(
    start_s: int, length_s: int, width: Width, limit: int
) -> None:
    end_s, at, page_start_s = start_s + length_s, start_s, start_s
    for _ in range(length_s // WIDTH_S[width] + 2):
        bounds, next_s = slices(query(page_start_s, end_s, width, limit))
        assert len(bounds) <= limit
        for first_s, after_s in bounds:
            assert first_s == at < after_s
            assert first_s // WIDTH_S[width] == (after_s - 1) // WIDTH_S[width]
            at = after_s
        if next_s is None:
            break
        assert next_s == at
        page_start_s = next_s
    assert at == end_s


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    offsets_ms=st.lists(st.integers(-4_000_000, 20_000_000), max_size=12),
    width=st.sampled_from(["1m", "1h", "1d"]),
    start_s=st.integers(NOON_S - 4000, NOON_S + 4000),
)
async def test_the_databases_buckets_are_those_of_plain_arithmetic(
    database: Database, offsets_ms: list[int], width: Width, start_s: int
) -> None:
    end_s = start_s + 10_000
    times = [NOON + timedelta(milliseconds=offset_ms) for offset_ms in offsets_ms]
    expected = Counter(int(time.timestamp()) // WIDTH_S[width] for time in times if start_s <= time.timestamp() < end_s)
    async with undone(database) as session:
        await record(session, [event(number, started_at=time) for number, time in enumerate(times)])
        found, _ = await usage_by_bucket(session, query(start_s, end_s, width))
    assert {
        bucket.start_s // WIDTH_S[width]: sums.requests for bucket in found for _, sums in bucket.results
    } == expected


async def test_groups_filters_kinds_and_organisations_are_kept_apart(database: Database) -> None:
    await fill(
        database,
        event(1),
        event(2, workspace_id="space"),
        event(3, key_id="key-2", model="large"),
        event(4, endpoint="embeddings", output_tokens=0),
        event(5, organisation_id="org-2"),
    )

    async def counts(**more: object) -> list[tuple[list[str | None], int]]:
        async with database.transaction() as session:
            found, _ = await usage_by_bucket(session, query(NOON_S, NOON_S + 60, **more))
        return [(list(names.values()), sums.requests) for names, sums in found[0].results]

    assert await counts() == [([], 3)]
    assert await counts(kind="embeddings") == [([], 1)]
    assert await counts(group_by=["model"]) == [(["brise"], 2), (["large"], 1)]
    assert sorted(await counts(group_by=["model", "api_key_id"])) == [(["brise", "key-1"], 2), (["large", "key-2"], 1)]
    assert sorted(await counts(group_by=["project_id"]), key=str) == [(["space"], 1), ([None], 2)]
    assert await counts(workspace_ids=["space"]) == [([], 1)]
    assert await counts(key_ids=["key-2", "key-9"]) == [([], 1)]
    assert await counts(models=["large"]) == [([], 1)]


async def test_empty_buckets_are_shown_and_an_empty_range_has_none(database: Database) -> None:
    await fill(database, event(0))
    async with database.transaction() as session:
        found, next_s = await usage_by_bucket(session, query(NOON_S - 3600, NOON_S + 7200, limit=2))
        none, _ = await usage_by_bucket(session, query(NOON_S, NOON_S))
    assert [len(bucket.results) for bucket in found] == [0, 1]
    assert next_s == NOON_S + 3600
    assert none == []


async def test_an_answer_that_nobody_could_read_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galerne.metering.service._MOST_ROWS", 2)
    some: list[UsageEvent] = [event(number, key_id=f"key-{number}") for number in range(3)]
    await fill(database, *some)
    async with database.transaction() as session:
        with pytest.raises(BadRequest):
            await usage_by_bucket(session, query(NOON_S, NOON_S + 60, group_by=["api_key_id"]))


def test_days_are_days_of_utc() -> None:
    midnight = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())
    assert slices(query(midnight, midnight + 2 * 86_400, "1d"))[0] == [
        (midnight, midnight + 86_400),
        (midnight + 86_400, midnight + 2 * 86_400),
    ]
