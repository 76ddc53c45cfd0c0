"""How Alembic reaches the database: async drivers, one transaction for all pending revisions, one upgrader at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection, event, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from galerne.kernel.database import Table, configure_sqlite

_LOCK = 7_105_377  # any number that no other use of advisory locks in this database takes


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=False)
    context.run_migrations()


async def _run() -> None:
    engine = create_async_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", configure_sqlite)
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    async with engine.begin() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


asyncio.run(_run())
