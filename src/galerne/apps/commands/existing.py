"""How a command that only reads opens a database: one that is there already, never one that it would have to make."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import make_url

from galerne.kernel import Database, NotFound, Settings

T = TypeVar("T")


def with_existing_database(data: Path | None, work: Callable[[Database], Awaitable[T]]) -> T:
    """What `work` returns; it opens its own transactions, so that a long walk does not hold up a running server.

    Raises `NotFound` when the data folder has no database.
    """
    url = Settings().with_data(data).resolved_database_url
    place = make_url(url)
    if place.get_backend_name() == "sqlite" and not Path(place.database or "").is_file():
        raise NotFound(
            f"There is no database at {place.database}. "
            "Start `galerne serve` once, or name the folder of an installation with --data or GALERNE_DATA."
        )
    return asyncio.run(_run(url, work))


async def _run(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    database = Database(url, pool_size=1)
    try:
        await database.migrate()
        return await work(database)
    finally:
        await database.close()
