"""Pools that many processes take from: on both databases, by the scripts that gateways run."""

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import make_url

from galerne.kernel import Database, open_writer
from galerne.metering.limit_windows import Window
from galerne.metering.pool_laws import GAUGE_RETRY_MS, HELD_RETRY_MS, Short, Taken
from galerne.metering.pools import (
    reclaim_script,
    renew_script,
    spend_script,
    takes_script,
)
from tests.metering.limit_fleet import HOUR_MS, MINUTE_MS, NOON_MS, leases, pool, read, run, take, taken_of
from tests.metering.takes import give_back_script, take_script

WITH_LEASES: list[Window] = ["5h", "day", "week", "month"]


async def test_a_pool_is_made_by_the_first_take_and_says_what_is_left(database: Database) -> None:
    got = await run(database, take_script(take(pool(100), 30), NOON_MS))
    assert isinstance(got, Taken)
    assert (got.amount, got.left_after, got.lease_amount) == (30, 70, 30)
    assert got.resets_at_ms == NOON_MS + 12 * HOUR_MS
    assert await taken_of(database) == 30
    assert await leases(database) == {got.lease_id: (30, 0)}


async def test_a_second_take_of_the_same_holder_grows_its_lease(database: Database) -> None:
    await run(database, take_script(take(pool(100), 30), NOON_MS))
    got = await run(database, take_script(take(pool(100), 20, seen=True), NOON_MS))
    assert (got.lease_amount, got.left_after) == (50, 50)
    assert list((await leases(database)).values()) == [(50, 0)]


async def test_less_than_the_least_is_not_handed_out(database: Database) -> None:
    got = await run(database, take_script(take(pool(100), 90), NOON_MS))
    await run(database, spend_script({got.lease_id: 90}))
    short = await run(database, take_script(take(pool(100), 11, "b"), NOON_MS))
    assert short == Short("rule:key-1", 10, 12 * HOUR_MS, NOON_MS + 12 * HOUR_MS)
    assert await taken_of(database) == 90


async def test_what_requests_under_way_may_give_back_is_not_waited_for_until_the_window_ends(
    database: Database,
) -> None:
    got = await run(database, take_script(take(pool(100), 90), NOON_MS))
    await run(database, spend_script({got.lease_id: 60}))
    pauses = {need: (await run(database, take_script(take(pool(100), need, "b"), NOON_MS))) for need in (40, 41)}
    assert pauses[40].retry_after_ms == HELD_RETRY_MS
    assert pauses[41].retry_after_ms == 12 * HOUR_MS


async def test_what_goes_beyond_the_need_is_a_small_part_of_what_is_left(database: Database) -> None:
    wish = take(pool(1600), 10, most=1000)
    assert (await run(database, take_script(wish, NOON_MS))).amount == 100
    got = None
    while not isinstance(got, Short):
        got = await run(database, take_script(take(pool(1600), 10, most=1000, seen=True), NOON_MS))
    assert got.left < 10


async def test_a_changed_amount_counts_at_once(database: Database) -> None:
    await run(database, take_script(take(pool(100), 60), NOON_MS))
    assert isinstance(await run(database, take_script(take(pool(50), 1), NOON_MS)), Short)
    assert (await run(database, take_script(take(pool(70), 1, most=10), NOON_MS))).left_after == 9


async def test_a_bucket_refills_evenly_and_lends_nothing(database: Database) -> None:
    spec = pool(60, "minute")
    got = await run(database, take_script(take(spec, 60), NOON_MS))
    assert (got.lease_id, got.resets_at_ms) == (None, NOON_MS + MINUTE_MS)
    short = await run(database, take_script(take(spec, 2), NOON_MS + 500))
    assert (short.left, short.retry_after_ms) == (0, 1500)
    assert (await run(database, take_script(take(spec, 2), NOON_MS + 2000))).left_after == 0
    assert await leases(database) == {}


async def test_a_bucket_gains_the_same_however_often_it_is_looked_at(database: Database) -> None:
    spec = pool(7, "minute")
    await run(database, take_script(take(spec, 7), NOON_MS))
    got = [await run(database, take_script(take(spec, 1), NOON_MS + at_ms)) for at_ms in range(0, 60_001, 1777)]
    assert sum(1 for each in got if isinstance(each, Taken)) == 6  # the seventh is there after the whole minute


async def test_a_full_bucket_lets_a_larger_request_pass_and_is_in_debt(database: Database) -> None:
    spec = pool(60, "minute")
    assert (await run(database, take_script(take(spec, 90), NOON_MS))).amount == 90
    short = await run(database, take_script(take(spec, 1), NOON_MS + 30_000))
    assert short.retry_after_ms == 1000
    assert isinstance(await run(database, take_script(take(spec, 61), NOON_MS + 89_999)), Short)


async def test_a_gauge_has_room_again_when_something_is_given_back(database: Database) -> None:
    spec = pool(2, "none", quantity="concurrent")
    got = [await run(database, take_script(take(spec, 1, holder), NOON_MS)) for holder in ("a", "b", "c")]
    assert got[2] == Short("rule:key-1", 0, GAUGE_RETRY_MS, None)
    await run(database, give_back_script([got[0].lease_id]))
    assert isinstance(await run(database, take_script(take(spec, 1, "c"), NOON_MS)), Taken)


@pytest.mark.parametrize("window", WITH_LEASES)
async def test_only_what_was_not_spent_goes_back(database: Database, window: Window) -> None:
    got = await run(database, take_script(take(pool(100, window), 40), NOON_MS))
    await run(database, spend_script({got.lease_id: 15}))
    await run(database, give_back_script([got.lease_id, "unknown"]))
    assert await taken_of(database) == 15
    assert await leases(database) == {}


async def test_what_was_spent_beyond_a_lease_is_counted_when_it_ends(database: Database) -> None:
    got = await run(database, take_script(take(pool(100), 40), NOON_MS))
    await run(database, spend_script({got.lease_id: 55}))
    await run(database, give_back_script([got.lease_id]))
    assert await taken_of(database) == 55


async def test_an_expired_lease_is_reclaimed_and_a_renewed_one_is_not(database: Database) -> None:
    dead = await run(database, take_script(take(pool(100), 40, "dead"), NOON_MS))
    alive = await run(database, take_script(take(pool(100), 20, "alive"), NOON_MS))
    await run(database, spend_script({dead.lease_id: 7}))
    assert await run(database, reclaim_script(NOON_MS + MINUTE_MS - 1)) == 0
    renewed = await run(database, renew_script([alive.lease_id, "gone"], NOON_MS + 2 * MINUTE_MS))
    assert renewed == {alive.lease_id}
    assert await run(database, reclaim_script(NOON_MS + MINUTE_MS)) == 1
    assert await taken_of(database) == 27
    assert await leases(database) == {alive.lease_id: (20, 0)}


async def test_a_lease_of_a_window_that_is_over_gives_nothing_to_the_new_one(database: Database) -> None:
    await run(database, take_script(take(pool(100), 40, "dead"), NOON_MS))
    tomorrow = NOON_MS + 24 * HOUR_MS
    got = await run(database, take_script(take(pool(100), 5, expires_at_ms=tomorrow + MINUTE_MS), tomorrow))
    assert got.left_after == 95
    assert await run(database, reclaim_script(tomorrow)) == 1
    assert await taken_of(database) == 5


async def test_five_hours_begin_with_the_first_use(database: Database) -> None:
    spec = pool(100, "5h")
    first = await run(database, take_script(take(spec, 100), NOON_MS))
    assert first.resets_at_ms == NOON_MS + 5 * HOUR_MS
    later = NOON_MS + 7 * HOUR_MS
    assert isinstance(await run(database, take_script(take(spec, 101), later)), Short)  # refused: no use
    again = await run(database, take_script(take(spec, 1), later + HOUR_MS))
    assert again.resets_at_ms == later + 6 * HOUR_MS


async def test_a_correction_is_counted_even_where_nothing_is_left(database: Database) -> None:
    got = await run(database, take_script(take(pool(100), 100), NOON_MS))
    over = take(pool(100), 0, correction=25, window_start_ms=got.window_start_ms)
    assert (await run(database, take_script(over, NOON_MS))).lease_amount == 125
    assert await taken_of(database) == 125


async def test_a_negative_correction_returns_no_more_than_is_unspent(database: Database) -> None:
    got = await run(database, take_script(take(pool(100), 50), NOON_MS))
    await run(database, spend_script({got.lease_id: 20}))
    back = take(pool(100), 0, correction=-45, window_start_ms=got.window_start_ms)
    assert (await run(database, take_script(back, NOON_MS))).lease_amount == 20
    assert await taken_of(database) == 20


async def test_a_correction_of_another_window_is_dropped(database: Database) -> None:
    got = await run(database, take_script(take(pool(100), 50), NOON_MS))
    late = take(pool(100), 10, correction=30, window_start_ms=got.window_start_ms)
    assert (await run(database, take_script(late, NOON_MS + 24 * HOUR_MS))).left_after == 90


async def test_a_pool_that_was_deleted_with_its_rule_is_made_again(database: Database) -> None:
    got = await run(database, take_script(take(pool(100), 10, seen=True), NOON_MS))
    assert got.left_after == 90


async def test_taking_and_giving_back_go_in_one_script(database: Database) -> None:
    old = await run(database, take_script(take(pool(10, "none"), 10, "a"), NOON_MS))
    wishes = [take(pool(10, "none"), 6, "b"), take(pool(5, name="other:key-1"), 1, "b")]
    got = await run(database, takes_script(wishes, NOON_MS, give_back=[old.lease_id]))
    assert [each.amount for each in got] == [6, 1]
    assert await taken_of(database) == 6


async def test_two_writers_that_race_for_fifty_get_exactly_fifty(database_url: str) -> None:
    spec = pool(50, quantity="requests")

    async def race(holder: str) -> int:
        writer, won = open_writer(make_url(database_url)), 0
        try:
            for _ in range(100):
                got: list[Any] = await writer.run([take_script(take(spec, 1, holder), NOON_MS)])
                won += isinstance(got[0], Taken)
        finally:
            await writer.close()
        return won

    assert sum(await asyncio.gather(race("a"), race("b"))) == 50


async def test_writers_that_want_many_pools_in_any_order_never_wait_in_a_circle(database_url: str) -> None:
    specs = [pool(400, name=f"rule{number}:key", quantity="requests") for number in range(6)]

    async def walk(holder: str, seed: int) -> None:
        rng, writer = random.Random(seed), open_writer(make_url(database_url))
        held: list[str] = []
        try:
            for _ in range(25):
                wanted = rng.sample(specs, 4)
                back = held if rng.random() < 0.2 else []
                script = takes_script([take(spec, 10, holder, least=1) for spec in wanted], NOON_MS, give_back=back)
                [answers] = await writer.run([script])
                held = [] if back else held
                for answer in answers:
                    if isinstance(answer, Taken):
                        held.append(str(answer.lease_id))
        finally:
            await writer.close()

    await asyncio.gather(*(walk(f"h{number}", number) for number in range(4)))
    database = Database(database_url)
    try:
        amounts = await read(
            database,
            "SELECT p.taken, (SELECT SUM(amount) FROM limit_leases l WHERE l.pool_id = p.id) FROM limit_pools p",
        )
    finally:
        await database.close()
    assert len(amounts) == 6
    assert all(taken == held <= 400 for taken, held in amounts)


async def test_what_an_engine_claims_or_a_request_asks_never_exceeds_what_the_database_counts(
    database: Database,
) -> None:
    bucket = pool(1000, "minute")
    await run(database, take_script(take(bucket, 10), NOON_MS))
    for beyond in (take(bucket, 0, correction=10**15, seen=True), take(bucket, 10**15, seen=True)):
        await run(database, take_script(beyond, NOON_MS + 10 * MINUTE_MS))
    assert isinstance(await run(database, take_script(take(bucket, 1, "b"), NOON_MS + 20 * MINUTE_MS)), Short)
