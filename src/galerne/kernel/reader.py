"""Small reads as scripts, for whoever needs a few rows for each of thousands of callers: keys, terms, prices.

SQLite's run where they are called, as those of the writer do, for they take microseconds, and going through a driver's
thread takes twenty times as long. PostgreSQL's run on a few asyncpg connections.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has none
from sqlalchemy import URL

from galerne.kernel.database import READ_ONLY
from galerne.kernel.errors import Unavailable
from galerne.kernel.logs import get_logger
from galerne.kernel.script import Script, run_on_sqlite
from galerne.kernel.writer import run_on_postgresql

__all__ = ["Reader", "open_reader"]

T = TypeVar("T")
_create_pool = cast(Callable[..., Any], asyncpg.create_pool)  # pyright: ignore[reportUnknownMemberType]  # asyncpg is untyped
_CONNECTIONS = 4
_CONNECT_TIMEOUT_S = 5
_COMMAND_TIMEOUT_S = 5
_AWAY = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError)
_LOCK_S = 0.1  # a reader waits for nobody in WAL mode, but while another process recovers the file


class Reader(Protocol):
    """Whoever runs scripts that only read."""

    async def run(self, script: Script[T]) -> T:
        """What the script returns, which sees one state of the database; `Unavailable` (503) where that is away."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def open_reader(url: URL) -> Reader:
    """A reader of the database at `url`; it connects when it is first used."""
    if url.get_backend_name() == "sqlite":
        return _SqliteReader(Path(str(url.database)))
    return _PostgresqlReader(url.set(drivername="postgresql").render_as_string(hide_password=False))


class _SqliteReader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    async def run(self, script: Script[T]) -> T:
        try:
            connection = self._connection or self._connect()
            connection.execute("BEGIN")
            try:
                return run_on_sqlite(connection, script)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            await self.close()  # whatever became of it, the next one begins anew
            raise _away(error) from error

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection:
        address = f"{self._path.absolute().as_uri()}?mode=rw"  # which makes no file
        self._connection = sqlite3.connect(address, uri=True, timeout=_LOCK_S, isolation_level=None)
        for pragma in READ_ONLY:
            self._connection.execute(f"PRAGMA {pragma}")
        return self._connection


class _PostgresqlReader:
    def __init__(self, address: str) -> None:
        self._address = address
        self._pool: Any = None

    async def run(self, script: Script[T]) -> T:
        try:
            pool = self._pool or await self._connect()
            async with (
                pool.acquire(timeout=_CONNECT_TIMEOUT_S) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await run_on_postgresql(connection, script)
        except _AWAY as error:
            raise _away(error) from error

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.terminate()

    async def _connect(self) -> Any:
        # Connections come when they are needed and are not cleaned between two reads: no script leaves anything in one.
        self._pool = _create_pool(
            self._address,
            min_size=0,
            max_size=_CONNECTIONS,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=_COMMAND_TIMEOUT_S,
            reset=_left_as_it_is,
        )
        await self._pool
        return self._pool


async def _left_as_it_is(_connection: Any) -> None:
    pass


def _away(error: Exception) -> Unavailable:
    # Callers are told to wait; only the log says whether that will help. What the database says may hold values.
    code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None)
    get_logger("reader").error("database failed", kind=type(error).__name__, code=code)
    return Unavailable("The database cannot be read at the moment.", code="database_unavailable", retry_after_s=1)
