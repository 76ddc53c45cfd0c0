"""Routes alone behind HTTP, called by whom a test wants, without the rest of the application."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx2
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from galerne.governance import Actor
from galerne.kernel import Clock, Database, GalerneError, Ids


class Server:
    """One router with its database and clock; `actor` is whoever calls."""

    def __init__(self, router: APIRouter, database: Database, clock: Clock, actor: Actor) -> None:
        self.actor = actor
        self.app = FastAPI()
        self.app.state.database = database
        self.app.state.clock = clock
        self.app.state.ids = Ids()
        self.app.include_router(router)
        self.app.middleware("http")(self._authenticate)
        self.app.add_exception_handler(GalerneError, self._refuse)
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://galerne")

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        answer = await self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def status(self, path: str, **query: Any) -> int:
        return (await self.client.get(path, params=query)).status_code

    async def _authenticate(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.actor = self.actor
        return await go_on(request)

    def _refuse(self, _request: Request, error: Exception) -> Response:
        return JSONResponse(str(error), cast(GalerneError, error).status)
