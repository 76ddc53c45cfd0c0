"""The journal over HTTP: one organisation's entries in the words of Mistral's admin API."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from galerne.apps.routes.journal import router
from galerne.governance import SYSTEM, Actor, ActorKind, Permission
from galerne.journal import append
from galerne.journal.merkle import hash_leaf
from galerne.kernel import Database, ManualClock
from tests.journal.entries import NOON, Someone, entry
from tests.journal.serving import Server

READER = Actor(ActorKind.USER, "ada", "org-1", None, frozenset({Permission.JOURNAL_READ}))
PATH = "/v1/admin/audit-logs"


async def seqs(server: Server, **query: Any) -> list[int]:
    return [one["seq"] for one in (await server.get(PATH, **query))["data"]]


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
    server = Server(router, database, ManualClock(NOON), READER)
    async with server.client:
        yield server


async def test_an_organisation_reads_its_own_entries_newest_first(server: Server) -> None:
    assert await seqs(server) == [4, 2, 1]
    assert await seqs(server, sort="asc") == [1, 2, 4]


async def test_an_entry_shows_who_what_and_the_bytes_that_were_hashed(server: Server) -> None:
    (one,) = (await server.get(PATH, event_type="model.add"))["data"]
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
    assert await seqs(server, actor_type=["HUMAN", "OTHER"]) == [4, 2]
    assert await seqs(server, **{"actor_type[]": "API_KEY"}) == [1]
    assert await seqs(server, before=4) == [2, 1]
    assert await seqs(server, after=1, sort="asc") == [2, 4]
    page = await server.get(PATH, limit=2)
    assert (page["has_more"], page["last_seq"]) == (True, 2)


async def test_a_key_of_one_workspace_reads_that_workspace_only(server: Server) -> None:
    server.actor = replace(READER, workspace_id="space")
    assert await seqs(server) == [2]


async def test_reading_the_journal_needs_its_permission(server: Server) -> None:
    server.actor = replace(READER, permissions=frozenset())
    assert await server.status(PATH) == 403


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 1001}, {"actor_type": "ROBOT"}, {"after": "x"}, {"sort": "up"}]
)
async def test_a_query_that_means_nothing_is_refused(server: Server, query: dict[str, Any]) -> None:
    assert await server.status(PATH, **query) == 422
