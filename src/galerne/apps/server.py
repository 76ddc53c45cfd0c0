"""Servers: everything in one place, a gateway on its own, a worker beside a server. Each opens the database, starts its
parts, listens, says where, and ends in good order.
"""

import asyncio
import fcntl
import os
import signal
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from galerne.apps.api import create_app, create_gateway_app
from galerne.apps.installation import Installation
from galerne.apps.listening import Listening, address_of, answer_until_told, bound, check_free
from galerne.apps.scrapes import SharedScrapes
from galerne.apps.wiring import EngineStates, InstallationReplicas, engine_specs
from galerne.apps.worker_child import beside_duties
from galerne.apps.workers import FIRST, NotedEngines, note_engines, worker_specs, workers_supervisor
from galerne.engines import Supervisor
from galerne.gateway import Gateway, HealthBook, Probes, replica_reader
from galerne.governance import SYSTEM
from galerne.identity import bootstrap
from galerne.journal import Follower
from galerne.kernel import Conflict, Database, Ids, Settings, SystemClock, get_logger
from galerne.models import EmbeddedModel, embedded_models, publish_embedded

_ENGINE_START_S = 120
_LONGEST_STOP_S = 75

Echo = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedParts:
    """What a server runs: embedded engines, a worker for duties, and how many processes answer on its port."""

    engines: bool = True
    duties: bool = True
    workers: int = 1


async def serve_forever(settings: Settings, where: Listening, echo: Echo, parts: ServedParts) -> None:
    """Serve until a signal says stop; `echo` gets the lines for the person who started it.

    Raises `Conflict` when the port or the data folder is taken by another process.
    """
    workers = parts.workers
    _make_private(settings.data)
    if workers > 1:
        check_free(where)
    embedded = embedded_models(settings.zone) if parts.engines else ()
    with (
        _only_server_of(settings.data),
        bound(where, shared=workers > 1) as listening,
        tempfile.TemporaryDirectory(prefix="galerne-") as name,
    ):
        run, stopping = Path(name), asyncio.Event()
        async with _opened(settings, embedded, run) as (installation, supervisor, new_admin_key):
            shown = new_admin_key if settings.admin_key is None else None
            there = replace(where, port=listening.getsockname()[1])
            async with (
                _beside_workers(installation, supervisor, (workers, run, there), stopping) as whole,
                beside_duties(settings, installation.clock, run, wanted=parts.duties),
            ):
                announcement = asyncio.create_task(
                    _announce(whole, supervisor, address_of(where, listening), shown, echo)
                )
                try:
                    await answer_until_told(create_app(whole), whole.gateway, listening, stopping)
                finally:
                    announcement.cancel()


async def serve_gateway(settings: Settings, where: Listening, echo: Echo) -> None:
    """Serve inference, the models list and health until a signal says stop, on a database that `serve` looks after.

    Raises `Conflict` when the port is taken or the database's schema is another version's.
    """
    _make_private(settings.data)
    database = Database(settings.resolved_database_url)
    try:
        await database.check_schema()
        with bound(where) as listening:
            async with _running(settings, database, Supervisor(SystemClock())) as installation:
                echo(f"Galerne's gateway listens on {address_of(where, listening)} and runs no engines of its own.")
                await answer_until_told(create_gateway_app(installation), installation.gateway, listening)
    finally:
        await database.close()


async def serve_worker(settings: Settings, where: Listening, run: Path, name: str) -> None:
    """Serve on a server's port beside it until a signal says stop, or until the server ends: standard input does."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    database = Database(settings.resolved_database_url)
    try:
        async with _running(settings, database, NotedEngines(run, SystemClock()), follows=False) as installation:
            scrapes = SharedScrapes(run, name, installation.registry)
            app = create_app(replace(installation, scrapes=scrapes))
            with bound(where, shared=True) as listening:  # only now: what comes here waits for nobody else
                await scrapes.start()
                try:
                    await answer_until_told(app, installation.gateway, listening)
                finally:
                    scrapes.stop()
    finally:
        await database.close()


@asynccontextmanager
async def _opened(
    settings: Settings, embedded: Sequence[EmbeddedModel], run: Path
) -> AsyncGenerator[tuple[Installation, Supervisor, str | None]]:
    database = Database(settings.resolved_database_url)
    supervisor = Supervisor(SystemClock())
    try:
        new_admin_key = await _prepare(database, settings, embedded)
        await supervisor.start(engine_specs(settings, embedded, run))
        async with _running(settings, database, supervisor) as installation:
            yield installation, supervisor, new_admin_key
    finally:
        await supervisor.stop()
        await database.close()


@asynccontextmanager
async def _running(
    settings: Settings, database: Database, engines: EngineStates, *, follows: bool = True
) -> AsyncGenerator[Installation]:
    clock, ids = SystemClock(), Ids()
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    health = HealthBook(seed=os.getpid())
    replicas = InstallationReplicas(settings, engines, health, clock)
    probes = Probes(replica_reader(database, replicas), health, clock, interval_s=settings.probe_interval_s)
    gateway = Gateway(database=database, settings=settings, clock=clock, ids=ids, replicas=replicas, registry=registry)
    follower = Follower(database, settings, clock, SYSTEM)
    await gateway.start()
    await probes.start()
    if follows:
        await follower.start()
    try:
        yield Installation(settings, database, clock, ids, engines, gateway, registry)
    finally:
        await gateway.stop()
        await probes.stop()
        await follower.stop()


@asynccontextmanager
async def _beside_workers(
    installation: Installation, engines: Supervisor, plan: tuple[int, Path, Listening], stopping: asyncio.Event
) -> AsyncGenerator[Installation]:
    """The installation with its further workers, who are told to stop when it is."""
    count, run, where = plan
    if count == 1:
        yield installation
        return
    scrapes, workers = SharedScrapes(run, FIRST, installation.registry), workers_supervisor(installation.clock)
    notes = asyncio.create_task(note_engines(run, engines))
    await scrapes.start()
    await workers.start(worker_specs(count, run, installation.settings.data, where))
    stop = asyncio.create_task(_stop_when(stopping, workers))
    try:
        yield replace(installation, scrapes=scrapes)
    finally:
        stopping.set()
        await stop
        notes.cancel()
        scrapes.stop()


async def _stop_when(stopping: asyncio.Event, workers: Supervisor) -> None:
    await stopping.wait()
    await workers.stop()


async def _prepare(database: Database, settings: Settings, embedded: Sequence[EmbeddedModel]) -> str | None:
    await database.migrate()
    chosen = None if settings.admin_key is None else settings.admin_key.get_secret_value()
    async with database.transaction() as session:
        new_admin_key = await bootstrap(session, Ids(), SystemClock(), chosen)
        await publish_embedded(session, [each.model for each in embedded], SystemClock())
    return new_admin_key


async def _announce(
    installation: Installation, supervisor: Supervisor, address: str, new_admin_key: str | None, echo: Echo
) -> None:
    settings = installation.settings
    echo(f"Galerne listens on {address} (documentation at /docs); its data is in {settings.data}.")
    if new_admin_key is not None:
        echo(f"Administrator's API key, shown this once:\n\n    {new_admin_key}\n")
    for engine in supervisor.replicas():
        if not await supervisor.wait_ready(engine.name, _ENGINE_START_S):
            failed = supervisor.replica(engine.name)
            get_logger("serve").error("engine not ready", engine=engine.name, problem=failed.last_error)
            echo(f"{engine.name} has not started: {failed.last_error or 'no answer yet'}. Galerne keeps trying.")
    known = "$GALERNE_API_KEY" if settings.admin_key is None else "$GALERNE_ADMIN_KEY"
    if supervisor.replicas():
        echo(_try_it(address, new_admin_key or known))
    else:
        echo("Ready, without embedded models: `galerne models add` brings in others.")


def _try_it(address: str, key: str) -> str:
    return (
        "Ready. Try it:\n\n"
        f'    curl {address}/v1/chat/completions -H "Authorization: Bearer {key}" \\\n'
        '      -d \'{"model": "brise", "messages": [{"role": "user", "content": "Who are you?"}]}\'\n'
    )


def _end_with_stdin() -> None:
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LONGEST_STOP_S)
    os._exit(1)  # nobody is left who could end a process that hangs


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
