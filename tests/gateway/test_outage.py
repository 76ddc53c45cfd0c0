"""The database goes away under a running gateway: who goes on, who is told what, and that nothing is lost or twice."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from galerne.gateway import Replica, asgi, settlement
from galerne.gateway.progress import alive_script
from galerne.gateway.settlement import Waits
from galerne.journal import verify
from galerne.kernel import Database, Ids, Settings, SystemClock, open_writer
from galerne.ledger import AccountKind, all_accounts, check_books
from tests.gateway.conftest import MODELS
from tests.gateway.installation import FixedReplicas, Installation, running_gateway
from tests.gateway.outages import away, hanging, make_paying
from tests.gateway.upstream import MockEngine

CHAT = "/v1/chat/completions"
PATIENCE_S = 1.0
TOKENS, NANO = 60, 2_000_000  # more than one of these requests reserves
SLACK_S = 10.0  # of a machine with other work; who hangs, hangs for as long as the outage lasts
Outage = Callable[[Database], AbstractAsyncContextManager[None]]
OUTAGES = [pytest.param(away, id="away"), pytest.param(hanging, id="hanging")]


def body(name: str = "normal", **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 20, **more}


async def until(condition: Callable[[], bool], within_s: float = 30) -> None:
    for _ in range(int(within_s * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


@pytest.fixture(autouse=True)
def unhurried() -> None:
    """Here how long a request waits for the database is as in production."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may hang for a second, and is tried again five times a second: the rest is as in production."""
    monkeypatch.setattr(settlement, "_LONGEST_WRITE_S", 1.0)
    monkeypatch.setattr(asgi, "Waits", partial(Waits, pauses_s=(0.05, 0.2)))


@asynccontextmanager
async def paying_gateway(database: Database, engine: MockEngine, **settings: Any) -> AsyncGenerator[Installation]:
    replica = Replica(id="r", base_url=engine.base_url)
    async with running_gateway(database, replica, MODELS, **settings) as running:
        for name in ("normal", "slow"):
            await make_paying(running, name)
        yield running


async def use(gateway: Installation, at_hand: int) -> int:
    """Requests at once, again and again, until leases for `at_hand` more are there; how many requests that were."""
    reservations, made = gateway.gateway._reservations, 0
    for _ in range(6):
        found = await asyncio.gather(*(gateway.post(CHAT, body()) for _ in range(2 * at_hand)))
        assert {status for status, _, _ in found} == {200}
        made += len(found)
        money = [hold.available for purse in reservations._purses.values() for hold in purse.holds]
        books = {book.pool.quantity: book.available for book in reservations._books.values()}
        if books["requests"] >= at_hand and books["tokens"] >= at_hand * TOKENS and sum(money) >= at_hand * NANO:
            return made
    raise AssertionError("nothing is leased ahead")


async def timed(gateway: Installation, **more: Any) -> tuple[int, str | None, float]:
    began_s = asyncio.get_running_loop().time()
    status, answer, headers = await gateway.post(CHAT, body(), **more)
    if status == 503:
        assert float(headers["retry-after"]) > 0
    return status, answer.get("code"), asyncio.get_running_loop().time() - began_s


async def check_all_recorded(gateway: Installation, count: int) -> None:
    """Usage, journal and ledger hold `count` requests, each once, and agree."""
    events = await gateway.settled(count)
    assert len(events) == len({event.id for event in events}) == count
    assert len(await gateway.journal()) == count
    owed = sum(2000 * each.input_tokens + 1000 * each.cached_tokens + 6000 * each.output_tokens for each in events)
    async with gateway.database.reading() as session:
        assert await check_books(session) == []
        assert (await verify(session)).problem is None
        accounts = {each.account.kind: each for each in await all_accounts(session)}
    assert accounts[AccountKind.REVENUE].credits_posted_nano == owed > 0


def unsettled(data: Path) -> list[Path]:
    return list(data.glob("unsettled-*"))


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_known_key_goes_on_against_its_leases_and_all_is_recorded_once_when_the_database_is_back(
    database: Database, engine: MockEngine, tmp_path: Path, outage: Outage
) -> None:
    engine.tokens = 60
    async with paying_gateway(database, engine, data=tmp_path / "data") as gateway:
        begun = engine.begun
        streams = [asyncio.create_task(gateway.events(CHAT, body("slow", stream=True))) for _ in range(5)]
        await until(lambda: engine.begun == begun + 5)
        made = await use(gateway, 15)
        async with outage(database):
            wholes = await asyncio.gather(*(timed(gateway) for _ in range(5)))
            await until(lambda: gateway.gateway.settlement_failing)
            await until(lambda: unsettled(tmp_path / "data") != [])
            for _ in range(5):
                wholes.append(await timed(gateway))
            fresh = await gateway.events(CHAT, body(stream=True))
            ended = await asyncio.gather(*streams)
        assert {status for status, _, _ in wholes} == {200}, wholes
        assert max(seconds for _, _, seconds in wholes) < PATIENCE_S + SLACK_S
        assert {events[-1] for events in (*ended, fresh)} == {"[DONE]"}
        await until(lambda: not gateway.gateway.settlement_failing)
        assert (await gateway.post(CHAT, body()))[0] == 200
        await check_all_recorded(gateway, made + 5 + 10 + 1 + 1)
        await until(lambda: unsettled(tmp_path / "data") == [])


@pytest.mark.parametrize("outage", OUTAGES)
async def test_what_leases_do_not_cover_is_503_with_retry_after_and_soon_and_never_hangs(
    database: Database, engine: MockEngine, outage: Outage
) -> None:
    async with paying_gateway(database, engine) as gateway:
        made = await use(gateway, 2)
        async with outage(database):
            found = await asyncio.gather(*(timed(gateway) for _ in range(30)))
            await until(lambda: gateway.gateway.settlement_failing)
            found += await asyncio.gather(*(timed(gateway) for _ in range(30)))
        assert {(status, code) for status, code, _ in found} <= {(200, None), (503, "database_unavailable")}
        assert (503, "database_unavailable") in {(status, code) for status, code, _ in found}
        assert max(seconds for _, _, seconds in found) < 3 * PATIENCE_S + SLACK_S
        await until(lambda: not gateway.gateway.settlement_failing)
        await check_all_recorded(gateway, made + sum(status == 200 for status, _, _ in found))


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_that_lasts_is_503_until_it_ends_and_needs_no_restart(
    database: Database, engine: MockEngine, outage: Outage
) -> None:
    async with paying_gateway(database, engine, outage_s=0.5) as gateway:
        made = await use(gateway, 5)
        async with outage(database):
            settled = await timed(gateway)
            await until(lambda: gateway.gateway._settlements.refusing)
            asked = len(engine.requests)
            status, error, headers = await gateway.post(CHAT, body())
            assert (status, error["code"], headers["retry-after"]) == (503, "database_unavailable", "5")
            assert len(engine.requests) == asked
        await until(lambda: not gateway.gateway._settlements.refusing)
        assert (await gateway.post(CHAT, body()))[0] == 200
        await check_all_recorded(gateway, made + (settled[0] == 200) + 1)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_key_that_is_not_known_is_503_in_an_outage_and_never_401(
    database: Database, engine: MockEngine, outage: Outage
) -> None:
    async with paying_gateway(database, engine) as gateway:
        await use(gateway, 5)
        unseen, wrong = await gateway.new_key(), "gal_" + "x" * 40
        assert (await gateway.post(CHAT, body(), key=wrong))[0] == 401
        await asyncio.sleep(1.1)
        async with outage(database):
            found = await asyncio.gather(*(timed(gateway, key=key) for key in (unseen, wrong, wrong + "y")))
        assert [(status, code) for status, code, _ in found] == [(503, "database_unavailable")] * 3
        assert max(seconds for _, _, seconds in found) < PATIENCE_S + SLACK_S
        assert (await timed(gateway, key=unseen))[0] == 200
        assert (await gateway.post(CHAT, body(), key=wrong))[0] == 401


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_gateway_that_is_stopped_in_an_outage_ends_in_time_and_the_next_one_records_what_it_left(
    database: Database, engine: MockEngine, tmp_path: Path, outage: Outage
) -> None:
    data = tmp_path / "data"
    async with paying_gateway(database, engine, data=data) as gateway:
        made = await use(gateway, 10)
        async with outage(database):
            found = await asyncio.gather(*(timed(gateway) for _ in range(5)))
            began_s = asyncio.get_running_loop().time()
            await gateway.gateway.stop(drain_s=0.2, settle_s=0.3)
            assert asyncio.get_running_loop().time() - began_s < 0.5 + SLACK_S
        assert {status for status, _, _ in found} == {200}
        assert unsettled(data) != []
    async with _again(database, data):
        await until(lambda: unsettled(data) == [])
    await check_all_recorded(gateway, made + 5)


@asynccontextmanager
async def _again(database: Database, data: Path) -> AsyncGenerator[None]:
    gateway = asgi.Gateway(
        database=database,
        settings=Settings(data=data),
        clock=SystemClock(),
        ids=Ids(),
        replicas=FixedReplicas(),
        registry=CollectorRegistry(),
    )
    await gateway.start()
    try:
        yield
    finally:
        await gateway.stop(drain_s=1, settle_s=1)


async def test_a_write_that_is_given_up_is_over_at_once_though_the_database_hangs(database: Database) -> None:
    writer, loop = open_writer(database.url), asyncio.get_running_loop()
    await writer.run([alive_script("a", 1)])
    async with hanging(database):
        began_s = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await writer.run([alive_script("a", 2)])
        assert loop.time() - began_s < 0.2 + SLACK_S
    await writer.run([alive_script("a", 3)])
    async with hanging(database):
        began_s = loop.time()
        await writer.close()
        assert loop.time() - began_s < 2 + SLACK_S
