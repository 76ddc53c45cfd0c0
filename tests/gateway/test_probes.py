"""Probes against real servers on loopback: alive, refusing, broken, dead and hanging ones."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from aiohttp import web

from galerne.apps.wiring import InstallationReplicas
from galerne.engines import Supervisor
from galerne.gateway import HealthBook, Probes, Replica, replica_reader
from galerne.gateway import probes as probes_module
from galerne.gateway.health import HealthState
from galerne.gateway.probes import Seen, probe
from galerne.governance import SYSTEM
from galerne.kernel import Database, Settings, SystemClock
from galerne.kernel.http_client import Client
from galerne.models import ExternalModel, add_external, find_model

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Site:
    """A server whose `/v1/models` answers as `handler` does, and which counts how often it was asked."""

    handler: Handler
    asked: int = 0
    keys: list[str | None] = field(default_factory=list)
    base_url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.keys.append(request.headers.get("authorization"))
        return await self.handler(request)


def says(body: str, status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body, status=status, headers={"location": "/elsewhere"} if status == 302 else None)

    return answer


def lists(*names: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})

    return answer


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def stops_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"data": [')
    await asyncio.sleep(60)
    return response


Start = Callable[[Handler], Awaitable[Site]]


@pytest.fixture
async def start() -> AsyncGenerator[Start]:
    async with AsyncExitStack() as stack:

        async def started(handler: Handler) -> Site:
            site = Site(handler)
            application = web.Application()
            application.router.add_get("/v1/models", site.answer)
            runner = web.AppRunner(application, shutdown_timeout=0, handler_cancellation=True)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            site.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            return site

        yield started


@pytest.fixture
async def http() -> AsyncGenerator[Client]:
    client = Client()
    yield client
    client.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes_module, "_LIMIT_S", 0.2)


def dead_url() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def replica(site: Site | str, replica_id: str, api_key: str | None = None) -> Replica:
    return Replica(id=replica_id, base_url=site if isinstance(site, str) else site.base_url, api_key=api_key)


def reading(found: Mapping[str, Sequence[Replica]]) -> Callable[[], Awaitable[Mapping[str, Sequence[Replica]] | None]]:
    async def read() -> Mapping[str, Sequence[Replica]]:
        return dict(found)

    return read


class Probing:
    """Probes that run for as long as the block lasts."""

    def __init__(self, found: Mapping[str, Sequence[Replica]], interval_s: float = 0.05) -> None:
        self.book = HealthBook()
        self.probes = Probes(reading(found), self.book, SystemClock(), interval_s=interval_s, random=Random(1))

    async def __aenter__(self) -> "Probing":
        await self.probes.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.probes.stop()

    def states(self) -> dict[str, HealthState]:
        return {each.id: each.state for each in self.book.snapshot(SystemClock().monotonic())}


async def until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    for _ in range(round(limit_s * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.mark.parametrize(
    ("handler", "seen"),
    [
        (lists("base", "legal"), Seen(True, frozenset({"base", "legal"}))),
        (lists(), Seen(True, frozenset())),
        (says('{"object": "list", "data": null}'), Seen(True)),
        (says("not json"), Seen(True)),
        (says('{"data": [{"id": 7}]}'), Seen(True)),
        (says(" " * 2_000_000), Seen(True)),
        *[(says("{}", status), Seen(True)) for status in (302, 401, 403, 404, 405, 429, 501)],
        *[(says("{}", status), Seen(False)) for status in (500, 502, 503)],
    ],
)
async def test_who_answers_is_alive_and_a_good_list_is_read(
    handler: Handler, seen: Seen, start: Start, http: Client
) -> None:
    assert await probe(http, (await start(handler)).base_url, None) == seen


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("handler", [hangs, stops_in_the_middle])
async def test_who_hangs_is_not_alive(handler: Handler, start: Start, http: Client) -> None:
    assert await probe(http, (await start(handler)).base_url, None) == Seen(False)


@pytest.mark.parametrize(
    "url", [dead_url(), "http://127.0.0.1:99999/v1", "http://[/v1"], ids=["closed port", "no port", "no url"]
)
async def test_who_cannot_be_reached_is_not_alive(url: str, http: Client) -> None:
    assert await probe(http, url, None) == Seen(False)


async def test_a_key_that_cannot_be_sent_is_a_failed_probe(start: Start, http: Client) -> None:
    assert await probe(http, (await start(lists("m"))).base_url, "two\nlines") == Seen(False)


async def test_the_key_goes_along(start: Start, http: Client) -> None:
    site = await start(lists("m"))
    await probe(http, site.base_url, "secret")
    assert site.keys == ["Bearer secret"]


async def test_what_servers_list_and_who_is_dead_is_in_the_book(start: Start) -> None:
    base, both = await start(lists("base")), await start(lists("base", "legal"))
    found = {"base": [replica(base, "1"), replica(both, "2"), replica(dead_url(), "3")]}
    async with Probing(found) as probing:
        await until(lambda: len(probing.states()) == 3 and probing.states()["3"] is HealthState.DEAD)
        assert probing.book.serves("1") == {"base"}
        assert probing.book.serves("2") == {"base", "legal"}
        assert probing.book.ejected(SystemClock().monotonic()) == {"3"}


async def test_a_server_that_comes_back_is_well_again(start: Start) -> None:
    site = await start(says("{}", 500))
    async with Probing({"m": [replica(site, "1")]}) as probing:
        await until(lambda: probing.states().get("1") is HealthState.DEAD)
        site.handler = lists("m")
        await until(lambda: probing.states()["1"] is HealthState.WELL)


async def test_more_hanging_servers_than_slots_do_not_delay_the_probes_of_the_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes_module, "_LIMIT_S", 1.0)
    hanging, well = await start(hangs), await start(lists("m"))
    keys = [replica(hanging, f"k{number}", api_key=f"key {number}") for number in range(60)]
    async with Probing({"m": [*keys, replica(well, "well")]}) as probing:
        await until(lambda: probing.states().get("k0") is HealthState.DEAD, 8)
        before = well.asked
        await asyncio.sleep(1)
        assert well.asked - before >= 10
        assert probing.states()["well"] is HealthState.WELL


async def test_one_server_of_several_models_is_asked_once_and_known_under_each_id(start: Start) -> None:
    site = await start(lists("a", "b"))
    async with Probing({"a": [replica(site, "1")], "b": [replica(site, "2")]}, interval_s=60) as probing:
        await until(lambda: set(probing.states()) == {"1", "2"})
        assert probing.book.serves("1") == probing.book.serves("2") == {"a", "b"}
        assert site.asked == 1


async def test_sockets_and_replicas_that_are_not_ready_are_left_alone(start: Start, tmp_path: Path) -> None:
    site, asked = await start(lists("m")), await start(lists("m"))
    unready = Replica(id="1", base_url=site.base_url, ready=False)
    engine = Replica(id="2", base_url=site.base_url, socket=tmp_path / "engine.sock")
    async with Probing({"m": [unready, engine, replica(asked, "3")]}):
        await until(lambda: asked.asked >= 3)
    assert site.asked == 0


async def test_a_server_that_is_registered_no_longer_is_asked_no_longer(start: Start) -> None:
    site, kept = await start(lists("m")), await start(lists("m"))
    found = {"m": [replica(site, "1"), replica(kept, "2")]}
    async with Probing(found) as probing:
        await until(lambda: site.asked > 0)
        found["m"] = [replica(kept, "2")]
        await until(lambda: set(probing.states()) == {"2"})
        before = site.asked
        asked = kept.asked
        await until(lambda: kept.asked >= asked + 3)
        assert site.asked == before


async def test_a_database_outage_stops_no_probe(start: Start) -> None:
    site = await start(lists("m"))
    answers: list[Mapping[str, Sequence[Replica]] | None] = [{"m": [replica(site, "1")]}]

    async def read() -> Mapping[str, Sequence[Replica]] | None:
        return answers.pop() if answers else None

    book = HealthBook()
    running = Probes(read, book, SystemClock(), interval_s=0.05)
    await running.start()
    await until(lambda: site.asked >= 4)
    await running.stop()
    assert book.serves("1") == {"m"}


async def test_the_catalogue_is_probed_and_an_outside_address_left_alone_while_offline(
    database: Database, start: Start
) -> None:
    site = await start(lists("m", "legal"))
    async with database.transaction() as session:
        for external in (
            ExternalModel(name="m", url=site.base_url, most_parallel=3),
            ExternalModel(name="m", url="http://192.0.2.1/v1", zone="fr"),
            ExternalModel(name="legal", adapter_of="m"),
        ):
            await add_external(session, SYSTEM, external, SystemClock())
    settings, book, clock = Settings(offline=True), HealthBook(), SystemClock()
    replicas = InstallationReplicas(settings, Supervisor(clock), book, clock)
    probes = Probes(replica_reader(database, replicas), book, clock, interval_s=0.05)
    await probes.start()
    await until(lambda: site.asked >= 2)
    await probes.stop()
    async with database.reading() as session:
        legal = await find_model(session, "legal")
    inside, outside = sorted(replicas.of(legal), key=lambda each: not each.ready)
    assert (inside.base_url, inside.serves, inside.most_parallel) == (site.base_url, {"m", "legal"}, 3)
    assert (outside.zone, outside.ready, outside.serves) == ("fr", False, None)
    assert "GALERNE_OFFLINE" in (outside.last_error or "")
    assert [each.id for each in book.snapshot(0)] == [inside.id]


async def test_an_unreadable_database_is_told_as_such(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    clock = SystemClock()
    read = replica_reader(database, InstallationReplicas(Settings(), Supervisor(clock)))
    assert await read() is None
    await database.close()
