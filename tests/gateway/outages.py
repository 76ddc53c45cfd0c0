"""Databases that are taken away from a running gateway, and given back."""

import os
import signal
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime

import asyncpg

from galerne.billing import NewRates, set_rates
from galerne.identity import resolve_key
from galerne.kernel import Database, Ids, SystemClock
from galerne.ledger import Grant, grant_credit
from tests.gateway.installation import Installation
from tests.processes import find

NANO = 10**9


async def make_paying(installation: Installation, model: str, credit_nano: int = 1000 * NANO) -> None:
    """A price for `model`, and credit for the organisation of the installation's key."""
    async with installation.database.transaction() as session:
        actor = (await resolve_key(session, installation.key, datetime.now(UTC))).actor
        rates = NewRates(
            currency="EUR",
            input_nano_per_million=2 * NANO,
            cached_nano_per_million=NANO,
            output_nano_per_million=6 * NANO,
        )
        await set_rates(session, actor, model, rates, Ids(), SystemClock())
        grant = Grant(id=f"credit-{model}", amount_nano=credit_nano, currency="EUR", reason="test")
        await grant_credit(session, actor, grant, SystemClock())


@asynccontextmanager
async def away(database: Database) -> AsyncGenerator[None]:
    """PostgreSQL that takes no connections and has ended all it had; SQLite whose write lock another one holds."""
    if database.is_sqlite:
        with _locked(str(database.url.database)):
            yield
        return
    name = database.url.database
    operator = await _operator(database)
    try:
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        yield
    finally:
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await operator.close()


@asynccontextmanager
async def hanging(database: Database) -> AsyncGenerator[None]:
    """PostgreSQL whose processes for this database, and the one that would start others, are stopped; SQLite as in
    `away`.
    """
    if database.is_sqlite:
        with _locked(str(database.url.database)):
            yield
        return
    operator = await _operator(database)
    try:
        rows = await operator.fetch("SELECT pid FROM pg_stat_activity WHERE datname = $1", database.url.database)
    except BaseException:
        await operator.close()
        raise
    own = find(operator.get_server_pid())
    assert own is not None
    pids = [own.parent, *(row["pid"] for row in rows)]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await operator.close()


async def _operator(database: Database) -> asyncpg.Connection:
    address = database.url.set(drivername="postgresql", database="postgres")
    return await asyncpg.connect(address.render_as_string(hide_password=False))


@contextmanager
def _locked(path: str) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
