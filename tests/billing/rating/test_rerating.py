"""Re-rating on both databases: what was agreed to is applied once, in batches, also by who comes after a killed one."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import text

from galerne.apps.worker import Worker
from galerne.billing import (
    Counts,
    Part,
    PriceChange,
    Rerating,
    ReratingRun,
    agreed_until,
    begin_rerating,
    change_prices,
    close_period,
    continue_rerating,
    correct_usage,
    list_reratings,
    preview_in_pages,
    preview_rerating,
)
from galerne.billing.rating import routes as rating_routes
from galerne.governance import SYSTEM
from galerne.journal import LeafFilter, read_all
from galerne.kernel import BadRequest, Conflict, Database, Ids, ManualClock, Settings, TooLarge
from tests.billing.rating.killed_rerating import LATER, SMALL, apply, dearer
from tests.billing.rating.test_in_the_database import billed, clock, event, rate, write
from tests.identity.tenants import NOW
from tests.journal.serving import Server

__all__ = ["clock"]
ROOT = Path(__file__).parents[3]
EVENTS = 10


@pytest.fixture
async def shown(database: Database, clock: ManualClock) -> Rerating:
    used = [event(at=NOW + n * timedelta(minutes=7), tier="batch" if n % 3 else "standard") for n in range(EVENTS)]
    await write(database, *used, event("small"))
    await rate(database, clock)
    clock.current = LATER
    report = await preview_in_pages(database, dearer(), clock)
    assert (report.events, report.changed) == (EVENTS + 1, EVENTS)
    return report


async def began(
    database: Database, clock: ManualClock, report: Rerating, change: PriceChange | None = None
) -> ReratingRun:
    async with database.transaction() as session:
        return await begin_rerating(session, SYSTEM, change or dearer(), (report, report.digest), Ids(), clock)


async def runs(database: Database) -> list[ReratingRun]:
    async with database.reading() as session:
        return await list_reratings(session)


def due(report: Rerating) -> int:
    return sum(each.difference_nano for each in report.differences)


async def test_it_is_applied_in_batches_once_and_says_how_far_it_is(
    database: Database, clock: ManualClock, shown: Rerating
) -> None:
    before = await billed(database)
    run = await began(database, clock, shown)
    assert (run.applied, run.finished_at, await billed(database)) == (0, None, before)
    async with database.transaction() as session:
        run = await continue_rerating(session, shown.digest, clock, SMALL)
    assert run.finished_at is None
    assert 0 < run.applied <= SMALL
    for _ in range(2):
        await apply(database, shown.digest)
        assert await billed(database) == before + due(shown)
    (run,) = await runs(database)
    assert (run.applied, run.changed, run.finished_at) == (EVENTS, EVENTS, LATER)
    async with database.reading() as session:
        assert (await session.execute(text("SELECT max(revision) FROM usage_ratings"))).scalar_one() == 1
        leaves = await read_all(session, LeafFilter(actions=("rating.rerate", "rating.rerated")), 10)
    assert len(leaves) == 2


async def test_killed_before_any_commit_another_goes_on_and_it_is_applied_once(
    database: Database, database_url: str, clock: ManualClock, shown: Rerating
) -> None:
    before = await billed(database)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    runner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.billing.rating.killed_rerating"),
        stdin=PIPE,
        stdout=PIPE,
        cwd=ROOT,
        env=environment,
    )
    assert runner.stdin is not None
    assert runner.stdout is not None
    ended = list[int]()
    for last in [1, 1, *[2] * 10, 0]:  # at first before anything, then one step further each time
        runner.stdin.write(f"{database_url} {shown.digest} {last}\n".encode())
        ended.append(int(await runner.stdout.readline()))
    runner.stdin.close()
    await runner.wait()
    assert ended[:6] == [-signal.SIGKILL] * 6
    assert ended[-1] == 0
    assert await billed(database) == before + due(shown)
    (run,) = await runs(database)
    assert (run.applied, run.finished_at) == (EVENTS, LATER)


async def test_what_was_corrected_or_priced_since_it_was_shown_is_refused(
    database: Database, clock: ManualClock, shown: Rerating
) -> None:
    clock.current += timedelta(minutes=1)
    async with database.reading() as session:
        name = (await session.execute(text("SELECT min(event_id) FROM usage_ratings"))).scalar_one()
    async with database.transaction() as session:
        await correct_usage(session, SYSTEM, name, Counts(1, 1, 1), "a test", clock)
    again = await preview_in_pages(database, dearer(), clock, as_of=agreed_until(shown.digest))
    assert again.digest != shown.digest
    with pytest.raises(Conflict, match="changed since it was shown"):
        await apply(database, shown.digest)
    other = await preview_in_pages(database, dearer(), clock)
    with pytest.raises(Conflict):  # agreed to, but to other prices
        await began(database, clock, other, dearer(5_000_000))
    async with database.transaction() as session:
        new = replace(dearer().rates[0], effective_from=clock.current + timedelta(days=1))
        await change_prices(session, SYSTEM, PriceChange(rates=(new,)), Ids(), clock)
    with pytest.raises(Conflict):  # prices have changed in between
        await began(database, clock, other)
    assert await runs(database) == []


async def test_what_was_used_since_it_was_shown_changes_no_digest_and_is_rated_again_too(
    database: Database, clock: ManualClock, shown: Rerating
) -> None:
    clock.current += timedelta(minutes=1)
    await write(database, event(at=clock.current - timedelta(seconds=1)), event(at=NOW + timedelta(hours=1)))
    await rate(database, clock)
    before = await billed(database)
    await apply(database, shown.digest)
    (run,) = await runs(database)
    assert (run.changed, run.applied) == (EVENTS, EVENTS + 2)
    assert await billed(database) == before + due(shown) + 2 * 2 * (4 - 7)


async def test_what_was_rated_by_later_prices_is_left_as_it_is(
    database: Database, clock: ManualClock, shown: Rerating
) -> None:
    await began(database, clock, shown)
    later = await preview_in_pages(database, dearer(9_000_000), clock)
    await began(database, clock, later, dearer(9_000_000))
    while any(run.finished_at is None for run in await runs(database)):
        for digest in (later.digest, shown.digest):
            async with database.transaction() as session:
                await continue_rerating(session, digest, clock, SMALL)
    assert (await preview_in_pages(database, dearer(9_000_000), clock)).differences == ()


async def test_a_month_is_not_closed_while_one_is_under_way_and_the_worker_goes_on_with_it(
    database: Database, clock: ManualClock, shown: Rerating
) -> None:
    before = await billed(database)
    await began(database, clock, shown)
    with pytest.raises(Conflict, match="re-rating"):
        async with database.transaction() as session:
            await close_period(session, SYSTEM, "2026-11", clock)
    (state,) = await Worker(database, clock, Settings()).run_now(["re-rating"])
    assert state.problem is None
    assert await billed(database) == before + due(shown)
    async with database.transaction() as session:
        await close_period(session, SYSTEM, "2026-11", clock)


async def test_a_part_can_be_looked_at_and_not_applied(database: Database, clock: ManualClock, shown: Rerating) -> None:
    clock.current = NOW + timedelta(days=40)
    await write(database, event(at=clock.current), structs.replace(event(at=clock.current), organisation_id="other"))
    await rate(database, clock)

    async def look(**part: Any) -> Rerating:
        async with database.reading() as session:
            return await preview_rerating(session, dearer(), clock, Part(**part))

    assert [(await look(**part)).events for part in ({}, {"period": "2026-11"}, {"period": "2027-01"})] == [
        EVENTS + 3,
        EVENTS + 1,
        2,
    ]
    other = await look(period="2027-01", organisation_id="other")
    assert ({each.organisation_id for each in other.differences}, other.events) == ({"other"}, 1)
    with pytest.raises(Conflict):
        await began(database, clock, other)
    with pytest.raises(TooLarge, match="More than 5 events"):
        await look(most=5)
    with pytest.raises(BadRequest, match="no month"):
        await look(period="2026-13")


async def test_over_http_a_part_is_shown_few_are_applied_at_once_and_of_many_the_rest_later(
    database: Database, clock: ManualClock, shown: Rerating, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(rating_routes.rating_router, database, clock, SYSTEM)
    rates = [{"model": "large", "token_class": "output", "currency": "EUR", "price": "0.004"}]
    prices = {"rates": [{**rates[0], "effective_from": NOW.isoformat()}]}
    path = "/v1/admin/rating/rerate"
    part = (await server.client.post(path, json={"prices": prices, "period": "2026-11"})).json()
    assert (part["digest"], part["events"], part["applied"]) == (None, EVENTS + 1, False)
    whole = (await server.client.post(path, json={"prices": prices})).json()
    agreed = {"prices": prices, "digest": whole["digest"]}
    assert (await server.client.post(path, json={**agreed, "period": "2026-11"})).status_code == 400
    assert (await server.client.post(path, json={**agreed, "digest": "x"})).status_code == 409
    monkeypatch.setattr(rating_routes, "_BATCHES_AT_ONCE", 1)
    answer = await server.client.post(path, json=agreed)
    assert (answer.status_code, answer.json()["applied"]) == (200, False)
    await Worker(database, clock, Settings()).run_now(["re-rating"])
    (run,) = (await server.get("/v1/admin/rating/reratings"))["data"]
    assert (run["applied"], run["finished_at"] is not None) == (EVENTS, True)
    monkeypatch.setattr(rating_routes, "MOST_EVENTS", 3)
    assert (await server.client.post(path, json={"prices": prices})).status_code == 413
