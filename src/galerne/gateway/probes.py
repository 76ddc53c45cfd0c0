"""Asks other servers at intervals whether they live and which models they list; the answers go into the health book."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from galerne.gateway.health import HealthBook
from galerne.gateway.routing import Replica, Replicas
from galerne.kernel import Clock, Database, get_logger
from galerne.kernel.http_client import Answer, Client, Lost, NotConnected, request_to
from galerne.models import list_models

__all__ = ["Probes", "Seen", "probe", "replica_reader"]

_LIMIT_S = 2.0
_NOT_IMPLEMENTED = 501
_LARGEST_LIST = 1024 * 1024
_WELL_AT_ONCE = 24
_SICK_AT_ONCE = 8  # slots of their own, so that no number of hanging servers keeps the others from being asked
_SOON_S = 1.0  # when a server has just failed, its state is settled soon
_SOON_TIMES = 3

ReplicaReader = Callable[[], Awaitable[Mapping[str, Sequence[Replica]] | None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a probe saw; `serves` are the names that the server lists, None where it does not tell."""

    alive: bool
    serves: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Server:
    base_url: str
    api_key: str | None = field(repr=False)


class _Listed(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Listed]


def replica_reader(database: Database, replicas: Replicas) -> ReplicaReader:
    """A function that reads every replica of the catalogue by model; None when the database cannot be read."""

    async def read() -> Mapping[str, Sequence[Replica]] | None:
        try:
            async with database.reading() as session:
                models = await list_models(session)
        except (SQLAlchemyError, OSError, TimeoutError):
            return None
        return {model.id: replicas.of(model) for model in models}

    return read


async def probe(client: Client, base_url: str, api_key: str | None) -> Seen:
    """Ask one server for its models. Alive is whoever answers without a server error, or that it has no such list."""
    headers = {"accept": "application/json", "accept-encoding": "identity", "connection": "close"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    try:
        async with asyncio.timeout(_LIMIT_S):
            address, head = request_to("GET", f"{base_url}/models", headers)
            with contextlib.closing(await client.send(address, head, None, _LIMIT_S)) as answer:
                if answer.status != 200:
                    return Seen(answer.status < 500 or answer.status == _NOT_IMPLEMENTED)
                return Seen(True, await _names(answer))
    except (NotConnected, Lost, TimeoutError, ValueError):  # ValueError: a key that cannot be a header
        return Seen(False)


async def _names(answer: Answer) -> frozenset[str] | None:
    raw = await answer.read_all(_LARGEST_LIST)
    try:
        return None if raw is None else frozenset(each.id for each in msgspec.json.decode(raw, type=_List).data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Probes:
    """Probes every server that `read` names, each at its own jittered interval; the same server of several models once.

    Replicas on unix sockets are supervised already, and those that are not `ready` (no key, outside while offline) are
    left alone.
    """

    def __init__(
        self, read: ReplicaReader, book: HealthBook, clock: Clock, *, interval_s: float, random: Random | None = None
    ) -> None:
        self._read = read
        self._book = book
        self._clock = clock
        self._interval_s = interval_s
        self._random = random or Random()  # noqa: S311 # spreads probes over time, keeps no secret
        self._ids: dict[_Server, tuple[str, ...]] = {}
        self._tasks: dict[_Server, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._client = Client()
        self._well = asyncio.Semaphore(_WELL_AT_ONCE)
        self._sick = asyncio.Semaphore(_SICK_AT_ONCE)

    async def start(self) -> None:
        """Begin to read and to probe."""
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End every probe."""
        tasks = [*self._tasks.values(), *([self._watching] if self._watching else [])]
        self._tasks, self._watching = {}, None
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._client.close()

    async def _watch(self) -> None:
        while True:
            found = await self._read()
            if found is not None:
                self._book.know({model: [each.id for each in replicas] for model, replicas in found.items()})
                self._follow(found)
            await asyncio.sleep(self._interval_s)

    def _follow(self, found: Mapping[str, Sequence[Replica]]) -> None:
        servers: dict[_Server, tuple[str, ...]] = {}
        for replica in (each for replicas in found.values() for each in replicas):
            if replica.socket is None and replica.ready:
                server = _Server(replica.base_url, replica.api_key)
                servers[server] = tuple(dict.fromkeys((*servers.get(server, ()), replica.id)))
        self._ids = servers
        for server in [each for each in self._tasks if each not in servers]:
            self._tasks.pop(server).cancel()
        for server in servers:
            if server not in self._tasks:
                self._tasks[server] = asyncio.create_task(self._probe_on_and_on(server))

    async def _probe_on_and_on(self, server: _Server) -> None:
        misses = 0
        while True:
            async with self._sick if misses else self._well:
                seen = await probe(self._client, server.base_url, server.api_key)
            if seen.alive != (misses == 0):
                get_logger("probes").warning("server answers again" if seen.alive else "no answer", url=server.base_url)
            misses = 0 if seen.alive else misses + 1
            for replica_id in self._ids.get(server, ()):
                self._book.probed(replica_id, self._clock.monotonic(), alive=seen.alive, serves=seen.serves)
            soon = 0 < misses < _SOON_TIMES
            pause_s = min(_SOON_S, self._interval_s) if soon else self._interval_s
            await asyncio.sleep(pause_s * self._random.uniform(0.8, 1.2))
