"""One connection that runs many scripts in one durable transaction: what a group commit needs, and no more.

SQLite's statements run where they are called, for they take microseconds; only the commit, which waits for the disk,
has a thread. PostgreSQL's run on one asyncpg connection, opened again when it was lost.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has none
from sqlalchemy import URL

from galerne.kernel.database import DURABLE
from galerne.kernel.script import Rows, Script, calls, run_on_sqlite

__all__ = ["Writer", "blames_content", "open_writer", "run_on_postgresql"]

# A value of any other type than int, float and str sends Python's driver looking for somebody who can adapt it, by two
# attributes that these types have not: ten times the cost of being told.
for _plain in (bool, bytes, type(None)):
    sqlite3.register_adapter(_plain, lambda value: value)
_connect = cast(Any, asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]  # asyncpg is untyped
_LOCK_PAUSE_S = 0.002
_CONNECT_TIMEOUT_S = 5
_COMMAND_TIMEOUT_S = 15
_CLOSE_TIMEOUT_S = 2
_LOST = (OSError, TimeoutError, asyncpg.InterfaceError)
_CACHED_STATEMENTS = 512
T = TypeVar("T")
# PostgreSQL's classes of errors that what was written can be at fault for: data, integrity, limits (appendix A).
_BLAMED_STATES = ("22", "23", "54")


class Writer(Protocol):
    """Whoever runs scripts; one call at a time."""

    async def run(self, scripts: Sequence[Script[Any]]) -> list[Any]:
        """What each script returned, all of them committed; when it raises, nothing was written.

        Unless only the confirmation of a commit was lost: then a script may find its own work there.
        """
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


def open_writer(url: URL) -> Writer:
    """A writer for the database at `url`; it connects when it is first used."""
    if url.get_backend_name() == "sqlite":
        return _SqliteWriter(Path(str(url.database)))
    return _PostgresqlWriter(url.set(drivername="postgresql").render_as_string(hide_password=False))


def blames_content(failure: BaseException) -> bool:
    """Whether what was written may be at fault, rather than a database that is away, full or has become read-only."""
    if isinstance(failure, sqlite3.Error):
        return not isinstance(failure, sqlite3.OperationalError | sqlite3.InternalError)
    if isinstance(failure, asyncpg.PostgresError):
        return str(getattr(failure, "sqlstate", ""))[:2] in _BLAMED_STATES
    return not isinstance(failure, OSError | TimeoutError | asyncpg.InterfaceError)


class _SqliteWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = _CommitThread()

    async def run(self, scripts: Sequence[Script[Any]]) -> list[Any]:
        connection = self._connection or self._connect()
        await _begin(connection)
        try:
            results = [run_on_sqlite(connection, script) for script in scripts]
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        try:
            await self._thread.call(partial(connection.execute, "COMMIT"))
        except asyncio.CancelledError:
            # The disk hangs: whoever waited has given up, and the thread closes what it still holds.
            self._abandon(connection)
            raise
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return results

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._thread.end()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=_CACHED_STATEMENTS
        )
        for pragma in DURABLE:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("PRAGMA busy_timeout=0")
        self._connection = connection
        return connection

    def _abandon(self, connection: sqlite3.Connection) -> None:
        self._thread.end(connection.close)
        self._thread = _CommitThread()
        self._connection = None


class _CommitThread:
    # What an executor does for each call, its own future, condition and callbacks, costs as much as the commit's
    # statements. It is a daemon, for a disk that hangs must not keep the process from ending.

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], object], asyncio.Future[None] | None]] = SimpleQueue()
        self._started = False

    def call(self, function: Callable[[], object]) -> asyncio.Future[None]:
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="commit", daemon=True).start()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.put((function, done))
        return done

    def end(self, last: Callable[[], object] = lambda: None) -> None:
        if self._started:
            self._calls.put((last, None))

    def _run(self) -> None:
        while True:
            function, done = self._calls.get()
            failure: Exception | None = None
            try:
                function()
            except Exception as error:  # noqa: BLE001 - it is raised where the call is waited for
                failure = error
            if done is None:
                return
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                done.get_loop().call_soon_threadsafe(_end, done, failure)


def _end(done: asyncio.Future[None], failure: Exception | None) -> None:
    if done.cancelled():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


async def _begin(connection: sqlite3.Connection) -> None:
    # Waiting in the driver for another writer's lock would stop the event loop, so it is asked for again and again.
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT):
                raise
            await asyncio.sleep(_LOCK_PAUSE_S)
        else:
            return


async def run_on_postgresql(connection: Any, script: Script[T]) -> T:
    """What `script` returns, run in the transaction that `connection`, one of asyncpg's, is in."""
    rows: Rows | None = None
    try:
        while True:
            statement = script.send(cast(Rows, rows))  # the first one is None, which starts a generator
            rows = []
            for sql, parameters in calls(statement, "postgresql"):
                rows += await connection.fetch(sql, *parameters)
    except StopIteration as end:
        return cast(T, end.value)


class _PostgresqlWriter:
    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: Any = None

    async def run(self, scripts: Sequence[Script[Any]]) -> list[Any]:
        connection = await self._connected()
        transaction = connection.transaction()
        try:
            await transaction.start()
            try:
                results = [await run_on_postgresql(connection, script) for script in scripts]
            except Exception as error:
                if not isinstance(error, _LOST):
                    await transaction.rollback()
                raise
            await transaction.commit()
        except (asyncio.CancelledError, *_LOST):
            # In an unknown state: nothing of this transaction may hold up the next one, and a rollback could hang too.
            self._connection = None
            connection.terminate()
            raise
        return results

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                await connection.close(timeout=_CLOSE_TIMEOUT_S)
            except (*_LOST, asyncpg.PostgresError):
                connection.terminate()

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(
                self._address, timeout=_CONNECT_TIMEOUT_S, command_timeout=_COMMAND_TIMEOUT_S
            )
        return self._connection
