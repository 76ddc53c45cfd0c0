"""How a command opens an installation's database: in the folder it was told, migrated, a server running or not."""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor
from galerne.identity import find_installation_admin, operator_in
from galerne.kernel import Database, NotFound, Settings

T = TypeVar("T")

_WIDE = 400


def with_database(data: Path | None, work: Callable[[Database], Awaitable[T]], *, create: bool = False) -> T:
    """What `work` returns; it opens its own transactions, so that a long walk does not hold up a running server.

    Without `create`, raises `NotFound` when the data folder holds no database: a command that only reads must not leave
    an empty installation where a folder's name was mistyped.
    """
    settings = Settings().with_data(data)
    url = settings.resolved_database_url
    place = make_url(url)
    if not create and place.get_backend_name() == "sqlite" and not Path(place.database or "").is_file():
        raise NotFound(
            f"There is no database at {place.database}. "
            "Start `galerne serve` once, or name the folder of an installation with --data or GALERNE_DATA."
        )
    return asyncio.run(_run(url, work))


def in_transaction(data: Path | None, work: Callable[[AsyncSession], Awaitable[T]], *, create: bool = False) -> T:
    """What `work` returns, run in one transaction on the database of the data folder; errors as `with_database`."""

    async def transact(database: Database) -> T:
        async with database.transaction() as session:
            return await work(session)

    return with_database(data, transact, create=create)


def as_operator(
    data: Path | None, work: Callable[[AsyncSession, Actor], Awaitable[T]], organisation: str | None = None
) -> T:
    """Like `in_transaction`, acting as the first administrator, or for the named organisation as the system.

    Raises `NotFound` before the first start, and for an organisation that does not exist.
    """

    async def with_operator(session: AsyncSession) -> T:
        first = await find_installation_admin(session)
        elsewhere = organisation not in (None, first.organisation_id)
        return await work(session, await operator_in(session, organisation or "") if elsewhere else first)

    return in_transaction(data, with_operator)


def print_table(table: Table) -> None:
    """Print for people; into a pipe without cutting cells to the width of a terminal that is not there."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    console.print(table)


async def _run(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    # Nothing but this command fills the memory that it is given: rating and closing write and make millions of things.
    database = Database(url, pool_size=1, cache_mib=32)
    gc.set_threshold(50_000, 20, 20)
    try:
        await database.migrate()
        return await work(database)
    finally:
        await database.close()
