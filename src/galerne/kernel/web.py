"""How a control-plane route gets its transaction: one a request, committed when the handler has returned.

The data plane does not use it: no session may stay open while an answer streams.
"""

from collections.abc import AsyncGenerator
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel.clock import Clock
from galerne.kernel.database import Database
from galerne.kernel.ids import Ids


async def _transaction(request: Request) -> AsyncGenerator[AsyncSession]:
    database = cast(Database, request.app.state.database)
    async with database.transaction() as session:
        yield session


async def _reading(request: Request) -> AsyncGenerator[AsyncSession]:
    database = cast(Database, request.app.state.database)
    async with database.reading() as session:
        yield session


def _clock(request: Request) -> Clock:
    return cast(Clock, request.app.state.clock)


def _ids(request: Request) -> Ids:
    return cast(Ids, request.app.state.ids)


# scope="function": the commit happens before the answer is sent, so that nobody is told of what then failed to commit.
Transaction = Annotated[AsyncSession, Depends(_transaction, scope="function")]
Reading = Annotated[AsyncSession, Depends(_reading, scope="function")]
RequestClock = Annotated[Clock, Depends(_clock)]
RequestIds = Annotated[Ids, Depends(_ids)]
