"""One server: opens the database, starts the engines, listens, says how to try it, and ends in good order."""

import asyncio
import fcntl
import os
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from galerne.apps.api import Installation, create_app
from galerne.apps.connections import BoundedHttp, most_connections
from galerne.apps.wiring import InstallationReplicas, engine_specs
from galerne.engines import Supervisor
from galerne.gateway import Gateway, HealthBook, Probes, replica_reader
from galerne.identity import bootstrap
from galerne.kernel import Conflict, Database, Ids, Settings, SystemClock, get_logger
from galerne.models import EmbeddedModel, embedded_models, publish_embedded

_ENGINE_START_S = 120
_GRACE_S = 20


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int


async def serve_forever(
    settings: Settings, where: Listening, echo: Callable[[str], None], *, with_engines: bool = True
) -> None:
    """Serve until a signal says stop; `echo` gets the lines for the person who started it.

    Raises `Conflict` when the port or the data folder is taken by another process.
    """
    _make_private(settings.data)
    with (
        _only_server_of(settings.data),
        _bound(where) as listening,
        tempfile.TemporaryDirectory(prefix="galerne-") as run,
    ):
        embedded = embedded_models(settings.zone) if with_engines else ()
        async with _opened(settings, embedded, Path(run)) as (installation, new_admin_key):
            config = uvicorn.Config(
                create_app(installation),
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                http=BoundedHttp,
                limit_concurrency=most_connections(),
                timeout_graceful_shutdown=_GRACE_S,
            )
            server = uvicorn.Server(config)
            address = f"http://{_reachable(where.host)}:{listening.getsockname()[1]}"
            announcement = asyncio.create_task(_announce(installation, address, new_admin_key, echo))
            # uvicorn raises the signal again when it is done; it has been obeyed then, and settling is still to come.
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, _already_obeyed)
            try:
                await server.serve(sockets=[listening])
            finally:
                announcement.cancel()


@asynccontextmanager
async def _opened(
    settings: Settings, embedded: Sequence[EmbeddedModel], run: Path
) -> AsyncGenerator[tuple[Installation, str | None]]:
    clock, ids = SystemClock(), Ids()
    database = Database(settings.resolved_database_url)
    supervisor = Supervisor(clock)
    try:
        new_admin_key = await _prepare(database, settings, ids, embedded)
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        health = HealthBook(seed=os.getpid())
        replicas = InstallationReplicas(settings, supervisor, health, clock)
        probes = Probes(replica_reader(database, replicas), health, clock, interval_s=settings.probe_interval_s)
        gateway = Gateway(
            database=database, settings=settings, clock=clock, ids=ids, replicas=replicas, registry=registry
        )
        await supervisor.start(engine_specs(settings, embedded, run))
        await gateway.start()
        await probes.start()
        try:
            yield Installation(settings, database, clock, ids, supervisor, gateway, registry), new_admin_key
        finally:
            await gateway.stop()
            await probes.stop()
    finally:
        await supervisor.stop()
        await database.close()


async def _prepare(database: Database, settings: Settings, ids: Ids, embedded: Sequence[EmbeddedModel]) -> str | None:
    await database.migrate()
    chosen = None if settings.admin_key is None else settings.admin_key.get_secret_value()
    async with database.transaction() as session:
        new_admin_key = await bootstrap(session, ids, SystemClock(), chosen)
        await publish_embedded(session, [each.model for each in embedded], SystemClock())
    return new_admin_key


async def _announce(
    installation: Installation, address: str, new_admin_key: str | None, echo: Callable[[str], None]
) -> None:
    echo(f"Galerne listens on {address} (documentation at /docs); its data is in {installation.settings.data}.")
    if new_admin_key is not None and installation.settings.admin_key is None:
        echo(f"Administrator's API key, shown this once:\n\n    {new_admin_key}\n")
    for engine in installation.supervisor.replicas():
        if not await installation.supervisor.wait_ready(engine.name, _ENGINE_START_S):
            failed = installation.supervisor.replica(engine.name)
            get_logger("serve").error("engine not ready", engine=engine.name, problem=failed.last_error)
            echo(f"{engine.name} has not started: {failed.last_error or 'no answer yet'}. Galerne keeps trying.")
    shown = new_admin_key if installation.settings.admin_key is None else "$GALERNE_ADMIN_KEY"
    if installation.supervisor.replicas():
        echo(_try_it(address, shown or "$GALERNE_API_KEY"))
    else:
        echo("Ready, without embedded models: `galerne models add` brings in others.")


def _try_it(address: str, key: str) -> str:
    return (
        "Ready. Try it:\n\n"
        f'    curl {address}/v1/chat/completions -H "Authorization: Bearer {key}" \\\n'
        '      -d \'{"model": "brise", "messages": [{"role": "user", "content": "Who are you?"}]}\'\n'
    )


def _already_obeyed(_signal: int, _frame: FrameType | None) -> None:
    pass


def _make_private(folder: Path) -> None:
    try:
        # A folder that was there keeps its permissions; what is written into it is private anyway.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Conflict(
            f"The data folder {folder} cannot be used: {error.strerror}. Name another with --data."
        ) from None


@contextmanager
def _only_server_of(data: Path) -> Generator[None]:
    descriptor = os.open(data / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(
                f"Another `galerne serve` already uses {data}. Stop it first, or name another folder with --data."
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _bound(where: Listening) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((where.host, where.port))
        except socket.gaierror:
            raise Conflict(f"{where.host} is no address of this machine; name one with --host.") from None
        except OSError as error:
            raise Conflict(
                f"Cannot listen on {where.host}:{where.port}: {error.strerror}. Choose another with --port or --host."
            ) from None
        listening.listen(2048)
        yield listening


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 # read here, never listened on
    return f"[{host}]" if ":" in host else host
