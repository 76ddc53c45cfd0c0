"""Limits over HTTP: set, seen with their use, removed, and refused by field."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from galerne.apps.routes.limits import router
from galerne.governance import SYSTEM
from galerne.identity import bootstrap, find_installation_admin
from galerne.kernel import Database, Ids, ManualClock
from galerne.models import ExternalModel, add_external
from tests.journal.serving import Server
from tests.metering.events import NOON

PATH = "/v1/admin/limits"


@pytest.fixture
async def server(database: Database) -> AsyncGenerator[Server]:
    clock = ManualClock(NOON)
    async with database.transaction() as session:
        await bootstrap(session, Ids(), clock, None)
        await add_external(session, SYSTEM, ExternalModel(name="large", url="http://127.0.0.1:9/v1"), clock)
        actor = await find_installation_admin(session)
    server = Server(router, database, clock, actor)
    async with server.client:
        yield server


def body(server: Server, **changes: Any) -> dict[str, Any]:
    own = server.actor.organisation_id
    return {"scope": "organisation", "scope_id": own, "quantity": "tokens", "window": "day", "amount": 500} | changes


async def test_a_limit_is_set_listed_and_removed(server: Server) -> None:
    made = (await server.client.post(PATH, json=body(server, model="large"))).json()
    assert (made["object"], made["model"], made["amount"], made["set_by"]) == ("limit", "large", 500, "organization")
    [listed] = (await server.get(PATH))["data"]
    assert listed == {**made, "used": 0, "remaining": 500, "resets_at": None}
    removed = await server.client.delete(f"{PATH}/{made['id']}")
    assert (removed.status_code, removed.json()) == (200, made)
    assert (await server.get(PATH))["data"] == []
    assert (await server.client.delete(f"{PATH}/{made['id']}")).status_code == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"amount": 0}, 400),
        ({"amount": 10**30}, 400),
        ({"amount": 1.5}, 422),
        ({"window": "year"}, 422),
        ({"window": "none"}, 400),
        ({"quantity": "nano"}, 400),
        ({"unknown": 1}, 422),
        ({"scope_id": "\x00"}, 422),
        ({"scope_id": "elsewhere"}, 404),
        ({"scope": "plan"}, 403),
        ({"model": "unheard-of"}, 404),
    ],
)
async def test_what_is_no_limit_is_refused(server: Server, change: dict[str, Any], status: int) -> None:
    assert (await server.client.post(PATH, json=body(server, **change))).status_code == status
    assert (await server.get(PATH))["data"] == []
