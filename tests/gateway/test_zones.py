"""A pinned key's requests stay where they may go, whatever happens to the replicas there."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from galerne.gateway import Replica
from galerne.kernel import Database
from tests.gateway.installation import Installation, model, running_gateway
from tests.gateway.upstream import MockEngine, running_engine

CHAT = "/v1/chat/completions"
REQUESTS = 60


@pytest.fixture
async def abroad() -> AsyncGenerator[MockEngine]:
    async with running_engine() as engine:
        yield engine


@pytest.fixture
async def zoned(sqlite: Database, engine: MockEngine, abroad: MockEngine) -> AsyncGenerator[Installation]:
    here = Replica(id="here", base_url=engine.base_url, zone="eu")
    there = Replica(id="there", base_url=abroad.base_url, zone="us")
    async with running_gateway(sqlite, here, [model("normal")]) as running:
        running.replicas.replicas = [here, there]
        yield running


async def ask(gateway: Installation, key: str, number: int) -> tuple[int, str | None]:
    # Each a conversation of its own, for one goes to where it was.
    body = {"model": "normal", "messages": [{"role": "user", "content": f"Hello, {number} times"}]}
    status, answer, _ = await gateway.post(CHAT, body, key=key)
    return status, answer["error"]["code"] if "error" in answer else None


async def at_once(gateway: Installation, key: str) -> list[tuple[int, str | None]]:
    return await asyncio.gather(*(ask(gateway, key, number) for number in range(REQUESTS)))


async def test_a_pinned_keys_requests_are_answered_in_its_zone_alone(
    zoned: Installation, engine: MockEngine, abroad: MockEngine
) -> None:
    key = await zoned.new_key(zones=frozenset({"eu"}))
    assert set(await at_once(zoned, key)) == {(200, None)}
    assert (len(engine.requests), len(abroad.requests)) == (REQUESTS, 0)
    assert {event.zone for event in await zoned.settled(REQUESTS)} == {"eu"}
    assert set(await at_once(zoned, zoned.key)) == {(200, None)}
    assert abroad.requests, "a key without a pin goes anywhere"


@pytest.mark.parametrize("how", ["not ready", "unreachable", "gone"])
async def test_while_the_replicas_of_its_zone_are_down_the_others_see_nothing_of_it(
    zoned: Installation, engine: MockEngine, abroad: MockEngine, how: str
) -> None:
    key = await zoned.new_key(zones=frozenset({"eu"}))
    here, there = zoned.replicas.replicas
    replacement = {
        "not ready": [Replica(id="here", base_url=here.base_url, zone="eu", ready=False)],
        "unreachable": [Replica(id="here", base_url="http://127.0.0.1:1/v1", zone="eu")],
        "gone": [],
    }[how]
    zoned.replicas.replicas = [*replacement, there]
    outcome = set(await at_once(zoned, key))
    assert {status for status, _ in outcome} <= {502, 503}
    assert {code for _, code in outcome} <= {
        "not ready": {"model_not_ready"},
        "unreachable": {"upstream_unreachable", "model_not_ready"},
        "gone": {"no_replica_in_zone"},
    }[how]
    assert (len(engine.requests), len(abroad.requests)) == (0, 0)


async def test_a_zone_that_fails_in_the_middle_of_a_load_sends_nothing_elsewhere(
    zoned: Installation, engine: MockEngine, abroad: MockEngine
) -> None:
    key = await zoned.new_key(zones=frozenset({"eu"}))
    here, there = zoned.replicas.replicas
    load = asyncio.create_task(_rounds(zoned, key))
    for _ in range(3):
        await asyncio.sleep(0.1)
        zoned.replicas.replicas = [Replica(id="here", base_url="http://127.0.0.1:1/v1", zone="eu"), there]
        await asyncio.sleep(0.1)
        zoned.replicas.replicas = [here, there]
    assert {status for status, _ in await load} <= {200, 502, 503}
    assert engine.requests
    assert abroad.requests == []


async def test_a_request_without_any_zone_left_is_served_nowhere(
    zoned: Installation, engine: MockEngine, abroad: MockEngine
) -> None:
    key = await zoned.new_key(zones=frozenset({"on-prem"}))
    assert set(await at_once(zoned, key)) == {(503, "no_replica_in_zone")}
    assert (engine.requests, abroad.requests) == ([], [])


async def _rounds(gateway: Installation, key: str) -> list[tuple[int, str | None]]:
    found: list[tuple[int, str | None]] = []
    for _ in range(12):
        found += await asyncio.gather(*(ask(gateway, key, number) for number in range(20)))
    return found
