"""How a command that only reads opens a database: one that is there already, never one that it would have to make."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from galerne.kernel import Database, NotFound, Settings

T = TypeVar("T")


def with_existing_database(data: Path | None, work: Callable[[Database], Awaitable[T]]) -> T:
    """What `work` returns; it opens its own transactions, so that a long walk does not hold up a running server.

    Raises `NotFound` when the data folder has no database.
    """
    return asyncio.run(_run(Settings().with_data(data), work))


async def _run(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    database = Database(settings.resolved_database_url, pool_size=1)
    path = Path(database.url.database or "")
    try:
        if database.is_sqlite and not path.exists():
            raise NotFound(
                f"There is no database at {path}. Start `galerne serve` once, or name the folder with --data or GALERNE_DATA."
            )
        await database.migrate()
        return await work(database)
    finally:
        await database.close()
