"""The journal over HTTP: one organisation's entries in the words of Mistral's admin API."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from galerne.apps.routes.journal import router
from galerne.governance import SYSTEM, Actor, ActorKind, Permission
from galerne.journal import append
from galerne.journal.leaf import hash_leaf
from galerne.kernel import Database, GalerneError
from tests.journal.entries import Someone, entry

READER = Actor(ActorKind.USER, "ada", "org-1", None, frozenset({Permission.JOURNAL_READ}))
PATH = "/v1/admin/audit-logs"


class Server:
    """The routes alone, with the caller that a test wants."""

    def __init__(self, database: Database) -> None:
        self.actor = READER
        self.app = FastAPI()
        self.app.state.database = database
        self.app.include_router(router)
        self.app.middleware("http")(self._authenticate)
        self.app.add_exception_handler(GalerneError, self._refuse)
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://galerne")

    async def _authenticate(self, request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.actor = self.actor
        return await go_on(request)

    def _refuse(self, _request: Request, error: Exception) -> Response:
        return JSONResponse(str(error), cast(GalerneError, error).status)

    async def seqs(self, **query: Any) -> list[int]:
        answer = await self.client.get(PATH, params=query)
        assert answer.status_code == 200, answer.text
        return [one["seq"] for one in answer.json()["data"]]


@pytest.fixture
async def server(database: Database) -> AsyncGenerator[Server]:
    async with database.transaction() as session:
        await append(
            session,
            [
                entry(1),
                entry(2, action="model.add", actor=Someone(kind="user", workspace_id="space")),
                entry(3, actor=Someone(organisation_id="org-2")),
                entry(4, actor=Someone(kind="system")),
                entry(5, actor=Someone(SYSTEM.kind, SYSTEM.id, SYSTEM.organisation_id)),
            ],
        )
    server = Server(database)
    async with server.client:
        yield server


async def test_an_organisation_reads_its_own_entries_newest_first(server: Server) -> None:
    assert await server.seqs() == [4, 2, 1]
    assert await server.seqs(sort="asc") == [1, 2, 4]


async def test_an_entry_shows_who_what_and_the_bytes_that_were_hashed(server: Server) -> None:
    (one,) = (await server.client.get(PATH, params={"event_type": "model.add"})).json()["data"]
    assert hash_leaf(one.pop("leaf").encode()).hex() == one.pop("leaf_hash")
    assert len(one.pop("chain_hash")) == 64
    assert one == {
        "log_id": "2",
        "seq": 2,
        "created_at": "2026-11-23T12:00:02Z",
        "actor_type": "HUMAN",
        "actor_metadata": {"id": "key-1", "kind": "user"},
        "event_type": "model.add",
        "event_metadata": {"number": 2},
        "target": "api_key/2",
        "outcome": "done",
        "request_id": f"{2:032x}",
        "organization_uuid": "org-1",
        "workspace_uuid": "space",
    }


async def test_filters_and_cursors_narrow(server: Server) -> None:
    assert await server.seqs(actor_type=["HUMAN", "OTHER"]) == [4, 2]
    assert await server.seqs(**{"actor_type[]": "API_KEY"}) == [1]
    assert await server.seqs(before=4) == [2, 1]
    assert await server.seqs(after=1, sort="asc") == [2, 4]
    page = (await server.client.get(PATH, params={"limit": 2})).json()
    assert (page["has_more"], page["last_seq"]) == (True, 2)


async def test_a_key_of_one_workspace_reads_that_workspace_only(server: Server) -> None:
    server.actor = replace(READER, workspace_id="space")
    assert await server.seqs() == [2]


async def test_reading_the_journal_needs_its_permission(server: Server) -> None:
    server.actor = replace(READER, permissions=frozenset())
    assert (await server.client.get(PATH)).status_code == 403


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 1001}, {"actor_type": "ROBOT"}, {"after": "x"}, {"sort": "up"}]
)
async def test_a_query_that_means_nothing_is_refused(server: Server, query: dict[str, Any]) -> None:
    assert (await server.client.get(PATH, params=query)).status_code == 422
