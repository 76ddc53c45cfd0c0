"""The database: SQLite or PostgreSQL behind one session, with the durability that money needs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import DateTime, Dialect, MetaData, event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


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
    """One pool of connections to one database. Sessions come from `transaction()`, which alone commits."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        # No prompt or key ever reaches a statement's parameters in a log: hide_parameters covers error messages too.
        self._engine = create_async_engine(
            self.url, hide_parameters=True, pool_size=pool_size, pool_pre_ping=not self.is_sqlite
        )
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", configure_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_immediate)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """A session whose work is committed when the block ends, and undone when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    async def migrate(self) -> None:
        """Bring the schema to the newest version; harmless when it is there, or when several processes try at once."""
        if self.is_sqlite and self.url.database not in (None, ":memory:"):
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_upgrade, self.url.render_as_string(hide_password=False))

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def configure_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: _begin_immediate does, so that writers queue, not deadlock.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", "galerne:migrations")
    config.attributes["url"] = url
    command.upgrade(config, "head")
