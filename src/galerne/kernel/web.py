"""How a control-plane route gets its transaction: one a request, committed when the handler has returned.

The data plane does not use it: no session may stay open while an answer streams.
"""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends, Request
from pydantic import AfterValidator, Field
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel.clock import Clock
from galerne.kernel.database import Database
from galerne.kernel.ids import Ids
from galerne.kernel.reader import Reader


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode, without half surrogate pairs") from None
    return text


def _in_range(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from None


Text = Annotated[str, AfterValidator(_storable)]
"""Text of a request that every database can hold."""

UtcMoment = Annotated[datetime, AfterValidator(_in_range)]
"""A time of a request, in UTC; one without a zone is taken for UTC."""

Position = Annotated[int, Field(ge=0, le=2**62)]
"""An offset or a sequence number of a request, within what every database can compare."""


# All of these are coroutines: FastAPI runs a plain function in a thread, which takes longer than what it does.
async def _database(request: Request) -> Database:
    return cast(Database, request.app.state.database)


async def _transaction(request: Request) -> AsyncGenerator[AsyncSession]:
    database = await _database(request)
    async with database.transaction() as session:
        yield session


async def _reading(request: Request) -> AsyncGenerator[AsyncSession]:
    database = await _database(request)
    async with database.reading() as session:
        yield session


async def _reader(request: Request) -> Reader:
    return cast(Reader, request.app.state.reader)


async def _clock(request: Request) -> Clock:
    return cast(Clock, request.app.state.clock)


async def _ids(request: Request) -> Ids:
    return cast(Ids, request.app.state.ids)


# scope="function": the commit happens before the answer is sent, so that nobody is told of what then failed to commit.
Transaction = Annotated[AsyncSession, Depends(_transaction, scope="function")]
Reading = Annotated[AsyncSession, Depends(_reading, scope="function")]
RequestDatabase = Annotated[Database, Depends(_database)]
"""For what takes its time between sessions of its own: one that is held meanwhile is a connection fewer for all."""
RequestReader = Annotated[Reader, Depends(_reader)]
RequestClock = Annotated[Clock, Depends(_clock)]
RequestIds = Annotated[Ids, Depends(_ids)]
