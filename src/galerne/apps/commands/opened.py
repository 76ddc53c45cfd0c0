"""How a command opens an installation's database: the folder it was told, migrated, with the operator as the actor."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor
from galerne.identity import find_installation_admin
from galerne.kernel import Database, Settings

T = TypeVar("T")

DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Data folder; default $GALERNE_DATA.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def in_transaction(data: Path | None, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """What `work` returns, run in one transaction on the database of the data folder; works beside a running server."""
    return asyncio.run(_run(Settings().with_data(data), work))


def as_operator(data: Path | None, work: Callable[[AsyncSession, Actor], Awaitable[T]]) -> T:
    """Like `in_transaction`, acting as the first administrator; `NotFound` before the first start."""

    async def with_operator(session: AsyncSession) -> T:
        return await work(session, await find_installation_admin(session))

    return in_transaction(data, with_operator)


async def _run(settings: Settings, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    database = Database(settings.resolved_database_url, pool_size=1)
    try:
        await database.migrate()
        async with database.transaction() as session:
            return await work(session)
    finally:
        await database.close()
