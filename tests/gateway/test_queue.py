"""Requests wait their turn where replicas are full: bounded, in order, with a deadline, and never after a hang-up."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from galerne.gateway import Replica
from galerne.identity import NewOrganisation, create_organisation
from galerne.kernel import Database, Ids, SystemClock
from tests.gateway.conftest import MODELS
from tests.gateway.installation import Installation, running_gateway
from tests.gateway.upstream import MockEngine

CHAT = "/v1/chat/completions"
SLOW = {"model": "slow", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 10}


@asynccontextmanager
async def gateway_with(
    database: Database, engine: MockEngine, room: int, **settings: Any
) -> AsyncGenerator[Installation]:
    replica = Replica(id="r", base_url=engine.base_url, most_parallel=room)
    async with running_gateway(database, replica, MODELS, **settings) as running:
        yield running


async def until_waiting(gateway: Installation, count: int) -> None:
    for _ in range(2_000):
        waiting = sum(
            sample.value
            for family in gateway.registry.collect()
            for sample in family.samples
            if sample.name == "galerne_gateway_queue_depth"
        )
        if waiting == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"there never were {count} waiting")


async def until_begun(engine: MockEngine) -> None:
    for _ in range(2_000):
        if engine.requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no request reached the engine")


async def test_no_more_run_at_once_than_a_replica_takes_and_the_rest_wait_their_turn(
    sqlite: Database, engine: MockEngine
) -> None:
    engine.tokens = 5
    async with gateway_with(sqlite, engine, 2) as gateway:
        asked = [asyncio.create_task(gateway.post(CHAT, SLOW)) for _ in range(7)]
        most = 0
        while not all(each.done() for each in asked):
            most = max(
                most, int(gateway.registry.get_sample_value("galerne_gateway_replica_requests", {"replica": "r"}) or 0)
            )
            await asyncio.sleep(0.005)
        assert [(await each)[0] for each in asked] == [200] * 7
        assert most == 2
        events = await gateway.settled(7)
        waited_ms = sorted(event.queue_ms for event in events)
        assert waited_ms[1] < waited_ms[2]
        assert waited_ms[2] > 60


async def test_a_full_queue_is_429_with_a_time_to_come_back_and_never_a_hang(
    sqlite: Database, engine: MockEngine
) -> None:
    async with gateway_with(sqlite, engine, 1, queue_capacity=2) as gateway:
        asked = [asyncio.create_task(gateway.post(CHAT, SLOW)) for _ in range(3)]
        await until_waiting(gateway, 2)
        status, answer, headers = await asyncio.wait_for(gateway.post(CHAT, SLOW), 5)
        assert (status, answer["code"]) == (429, "queue_full")
        assert 1 <= int(headers["retry-after"]) <= 60
        assert headers["x-should-retry"] == "true"
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_who_waits_too_long_is_told_and_nothing_is_charged(sqlite: Database, engine: MockEngine) -> None:
    async with gateway_with(sqlite, engine, 1, queue_timeout_s=0.3) as gateway:
        first = asyncio.create_task(gateway.events(CHAT, {**SLOW, "stream": True}))
        await until_begun(engine)
        status, answer, headers = await gateway.post(CHAT, SLOW)
        assert (status, answer["code"]) == (429, "queue_timeout")
        assert int(headers["retry-after"]) >= 1
        assert len(engine.requests) == 1
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert len(await gateway.settled(1)) == 1


async def test_a_client_that_hangs_up_while_it_waits_never_reaches_an_engine(
    sqlite: Database, engine: MockEngine
) -> None:
    engine.tokens = 40
    async with gateway_with(sqlite, engine, 1) as gateway:
        first = asyncio.create_task(gateway.post(CHAT, SLOW))
        await until_begun(engine)
        second = asyncio.create_task(gateway.post(CHAT, SLOW))
        await until_waiting(gateway, 1)
        second.cancel()
        await until_waiting(gateway, 0)
        assert (await first)[0] == 200
        await asyncio.sleep(0.1)
        assert len(engine.requests) == 1


async def test_a_tenant_that_floods_does_not_keep_a_small_one_waiting(sqlite: Database, engine: MockEngine) -> None:
    engine.tokens = 5
    async with gateway_with(sqlite, engine, 1) as gateway:
        other = await _key_of_another_organisation(gateway)
        flood = [asyncio.create_task(gateway.post(CHAT, SLOW)) for _ in range(10)]
        await until_waiting(gateway, 9)
        assert (await gateway.post(CHAT, SLOW, key=other))[0] == 200
        assert sum(not each.done() for each in flood) >= 7
        await asyncio.gather(*flood)


async def _key_of_another_organisation(gateway: Installation) -> str:
    async with gateway.database.transaction() as session:
        _, created = await create_organisation(session, NewOrganisation(name="other"), Ids(), SystemClock())
    return created.secret


@pytest.mark.parametrize("dead", ["connection refused", "answers 500"])
async def test_a_bad_replica_is_left_for_a_good_one_while_nothing_has_been_sent(
    sqlite: Database, engine: MockEngine, dead: str
) -> None:
    url = "http://127.0.0.1:9/v1" if dead == "connection refused" else engine.base_url.replace("/v1", "/nowhere/v1")
    async with gateway_with(sqlite, engine, 8) as gateway:
        gateway.replicas.replicas.append(Replica(id="bad", base_url=url))
        found = [(await gateway.post(CHAT, {**SLOW, "model": "normal"}))[0] for _ in range(12)]
        assert set(found) == {200}
        assert len(await gateway.settled(12)) == 12
