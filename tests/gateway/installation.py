"""A gateway on a real socket before the mock engine, with real keys and models in a real database."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import aiohttp
import uvicorn
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from galerne.apps.connections import bounded_http
from galerne.gateway import Gateway, HealthBook, Replica
from galerne.identity import NewKey, bootstrap, create_key, resolve_key
from galerne.journal import read_all
from galerne.kernel import Clock, Database, Ids, Settings, SystemClock
from galerne.metering.tables import UsageEventRow
from galerne.models import Model, publish_embedded

CHAT = frozenset({"completion_chat", "completion_fim", "function_calling"})


def model(name: str, **changes: Any) -> Model:
    """A model of the mock engine; its behaviour is its name."""
    values: dict[str, Any] = {
        "id": name,
        "version": "7",
        "kind": "chat",
        "engine": "openai",
        "aliases": (),
        "context_length": 4096,
        "capabilities": CHAT,
        "upstream_model": name,
        "zone": "on-prem",
        "licence": "Apache-2.0",
        "owned_by": "galerne",
        "created_at": datetime(2026, 11, 1, tzinfo=UTC),
        "description": "",
    }
    return Model(**{**values, **changes})


@dataclass
class FixedReplicas:
    """Replicas that a test sets; the same for every model."""

    replicas: list[Replica] = field(default_factory=list)
    health: HealthBook = field(default_factory=HealthBook)

    def of(self, model: Model) -> Sequence[Replica]:
        return self.replicas


@dataclass
class Installation:
    """A running gateway and what a test needs to talk to it and to look behind it."""

    base_url: str
    key: str
    gateway: Gateway
    database: Database
    registry: CollectorRegistry
    replicas: FixedReplicas
    http: aiohttp.ClientSession
    key_ids: dict[str, str] = field(default_factory=dict)

    def headers(self, key: str | None = None) -> dict[str, str]:
        return {"authorization": f"Bearer {key or self.key}"}

    async def post(
        self, path: str, body: Any, headers: dict[str, str] | None = None, key: str | None = None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, parsed body and headers of one answer that is not streamed."""
        sent = {**self.headers(key), **(headers or {})}
        async with self.http.post(self.base_url + path, json=body, headers=sent) as response:
            return response.status, await response.json(), {k.lower(): v for k, v in response.headers.items()}

    async def events(self, path: str, body: Any, headers: dict[str, str] | None = None) -> list[str]:
        """The data of every event of one streamed answer."""
        sent = {**self.headers(), **(headers or {})}
        async with self.http.post(self.base_url + path, json=body, headers=sent) as response:
            text = (await response.read()).decode()
        return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]

    async def usage(self) -> list[Any]:
        """Every usage event, in the order of ids."""
        async with self.database.reading() as session:
            return list((await session.scalars(select(UsageEventRow).order_by(UsageEventRow.id))).all())

    async def journal(self) -> list[str]:
        """The actions of every inference in the journal, oldest first."""
        async with self.database.reading() as session:
            leaves = await read_all(session, limit=10_000)
        return [leaf.action for leaf in reversed(leaves) if leaf.action.startswith("inference.")]

    async def settled(self, count: int) -> list[Any]:
        """The usage events once there are `count` of them."""
        for _ in range(1_500):
            events = await self.usage()
            if len(events) >= count:
                return events
            await asyncio.sleep(0.02)
        return await self.usage()

    async def new_key(self, clock: Clock | None = None, **terms: Any) -> str:
        """One more key, with `terms` of `NewKey`."""
        async with self.database.transaction() as session:
            grant = await resolve_key(session, self.key, datetime.now(UTC))
            created = await create_key(
                session, grant.actor, NewKey(name="test", **terms), Ids(), clock or SystemClock()
            )
        self.key_ids[created.secret] = created.row.id
        return created.secret


async def prepared(database: Database, models: Sequence[Model]) -> str:
    """An administrator's key, and a catalogue with `models`."""
    async with database.transaction() as session:
        key = await bootstrap(session, Ids(), SystemClock(), None)
        await publish_embedded(session, models, SystemClock())
    assert key is not None
    return key


@asynccontextmanager
async def running_gateway(
    database: Database, replica: Replica, models: Sequence[Model], **settings: Any
) -> AsyncGenerator[Installation]:
    """A gateway under uvicorn on loopback; its data folder is a passing one unless `settings` name one."""
    if "data" not in settings:
        with TemporaryDirectory() as data:
            async with running_gateway(database, replica, models, data=Path(data), **settings) as running:
                yield running
        return
    key = await prepared(database, models)
    registry, replicas = CollectorRegistry(), FixedReplicas([replica])
    gateway = Gateway(
        database=database,
        settings=Settings(**settings),
        clock=SystemClock(),
        ids=Ids(),
        replicas=replicas,
        registry=registry,
    )
    await gateway.start()
    # asyncio turns Nagle's delay off only for sockets that name their protocol; create_server does not.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    config = uvicorn.Config(
        cast(Any, gateway),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        ws="none",
        http=cast(Any, bounded_http(gateway)),
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        base_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            yield Installation(base_url, key, gateway, database, registry, replicas, http)
        finally:
            await http.close()
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            await gateway.stop(drain_s=2, settle_s=1)
            listening.close()
