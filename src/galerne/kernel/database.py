"""The database: SQLite or PostgreSQL behind one session, with the durability that money needs."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, Dialect, MetaData, event, inspect, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import await_only

from galerne.kernel.errors import Conflict, Unavailable

_WAL_TRIES = 500
_WAL_PAUSE_S = 0.01
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


# recursive_triggers: without it INSERT OR REPLACE would slip past the triggers that keep rows append-only.
# cache_size: KiB of pages that each connection keeps; the system keeps the file's pages too, for all of them together.
_PAGES = "cache_size=-1024"
_PATIENCE_S = 10.0  # for a connection of the pool; then 503
DURABLE = (
    *("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON", "busy_timeout=10000"),
    _PAGES,
)
"""What SQLite is told on each connection that writes."""

READ_ONLY = ("query_only=ON", _PAGES)
"""What it is told on each that reads."""


class Table(DeclarativeBase):
    """Base of every table; constraint names are fixed so that a migration can name them on both databases."""

    metadata = MetaData(naming_convention=_NAMES)


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite forgets zones, so it is stored and read back as UTC there."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: nobody could say which hour it means."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The stored time, aware, UTC."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Database:
    """One database. Sessions come from `transaction()`, which alone commits, and from `reading()`.

    `cache_mib`: how much of SQLite's file a connection that writes keeps; who writes millions of rows wants more.
    """

    def __init__(self, url: str, *, pool_size: int = 5, cache_mib: int = 1) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = _engine(self.url, pool_size)
        self._readers = self._engine
        if self.is_sqlite:
            make_durable(self._engine, cache_mib)
            self._readers = _engine(self.url, pool_size)
            _make_read_only(self._readers)
        read_only = {} if self.is_sqlite else {"postgresql_readonly": True}
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._reading = async_sessionmaker(self._readers.execution_options(**read_only), expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """A session whose work is committed when the block ends, and undone when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        """A session that sees one state of the database and cannot write; on SQLite it waits for no writer."""
        async with self._reading() as session, session.begin():
            yield session

    async def migrate(self) -> None:
        """Bring the schema to the newest version; harmless when it is there, or when several processes try at once.

        A step is taken by a process of its own, so that this one need not hold what only steps need. Raises
        `Unavailable`, without the password, when the database cannot be used, `Conflict` when its schema is newer.
        """
        try:
            if self.is_sqlite and self.url.database not in (None, ":memory:"):
                Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
            found = await self._schema()
        except (OSError, DBAPIError) as error:
            raise self._unusable(reason(error)) from error
        known = _steps()
        if found is not None and found not in known:
            where = self.url.render_as_string(hide_password=True)
            raise Conflict(
                f"The schema of the database {where} is {found}, and this version "
                f"knows none after {known[-1]}: use the version of Galerne that made it, or a newer one."
            )
        if found != known[-1]:
            problem = await asyncio.to_thread(_run_steps, self.url)
            if problem is not None:
                raise self._unusable(problem)

    async def check_schema(self) -> None:
        """Raise `Conflict` unless the schema is this version's, for those who must not change it; never makes a file.

        Raises `Unavailable` as `migrate` does.
        """
        if self.is_sqlite and not await asyncio.to_thread(Path(str(self.url.database)).is_file):
            raise self._unusable("there is no such file")
        try:
            found = await self._schema()
        except (OSError, DBAPIError) as error:
            raise self._unusable(reason(error)) from error
        wanted = _steps()[-1]
        if found != wanted:
            where = self.url.render_as_string(hide_password=True)
            raise Conflict(
                f"The schema of the database {where} is {found or 'not there'}, and this version needs {wanted}: "
                "start `galerne serve` of this version on it once."
            )

    async def _schema(self) -> str | None:
        async with self.reading() as session:
            return await session.run_sync(lambda sync: _revision(sync.connection()))

    def _unusable(self, why: str) -> Unavailable:
        return Unavailable(f"The database {self.url.render_as_string(hide_password=True)} cannot be used: {why}.")

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await self._readers.dispose()


def _engine(url: URL, pool_size: int) -> AsyncEngine:
    # hide_parameters: what users wrote must not reach a log through the text of a database error.
    # max_overflow: a connection more is a thread and a megabyte, or a server process, made for one transaction; whoever
    # comes beyond the pool is served sooner by waiting. LIFO: the caches of the last one used are warm.
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_PATIENCE_S,
        pool_use_lifo=True,
        pool_pre_ping=url.get_backend_name() != "sqlite",
    )


def make_durable(engine: AsyncEngine, cache_mib: int = 1) -> None:
    """Have a SQLite engine use WAL, flush each commit to the disk, and take the write lock at once."""
    _on_connect(engine, (*DURABLE, f"cache_size={-1024 * cache_mib}"))
    # Taking the lock at the beginning lets writers queue; taking it at the first write lets them deadlock.
    event.listen(engine.sync_engine, "begin", _begin_immediate)


def _make_read_only(engine: AsyncEngine) -> None:
    _on_connect(engine, (*READ_ONLY, "busy_timeout=10000"))
    event.listen(engine.sync_engine, "begin", _begin)


def _on_connect(engine: AsyncEngine, pragmas: tuple[str, ...]) -> None:
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        cursor = connection.cursor()
        for pragma in pragmas:
            _set(cursor, pragma)
        cursor.close()

    event.listen(engine.sync_engine, "connect", configure)


def _set(cursor: Any, pragma: str) -> None:
    # Of several who make a new file WAL at once SQLite refuses some without waiting, lest they wait for each other.
    for left in range(_WAL_TRIES, -1, -1):
        try:
            cursor.execute(f"PRAGMA {pragma}")
        except sqlite3.OperationalError as error:
            if not left or error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            await_only(asyncio.sleep(_WAL_PAUSE_S))
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def reason(error: OSError | DBAPIError) -> str:
    """What the database said, in one line without a full stop."""
    cause = error.orig or error if isinstance(error, DBAPIError) else error
    said = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
    return said.splitlines()[0].rstrip(".")


def _steps() -> list[str]:
    folder = resources.files("galerne") / "migrations" / "versions"
    return sorted(each.name[1:5] for each in folder.iterdir() if each.name.startswith("v"))


def _run_steps(url: URL) -> str | None:
    """What went wrong. The address goes over standard input, where no list of processes shows its password."""
    ran = subprocess.run(
        [sys.executable, "-m", "galerne.migrations"],
        input=url.render_as_string(hide_password=False),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return None if ran.returncode == 0 else ran.stdout.strip() or f"its migration ended with {ran.returncode}"


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
