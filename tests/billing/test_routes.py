"""Prices over HTTP: decimals in strings, set by the operator alone."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from galerne.apps.refusals import install_refusals
from galerne.billing.routes import router
from galerne.governance import ROLE_PERMISSIONS, SYSTEM, Permission, Role
from galerne.kernel import Database, ManualClock
from galerne.models import ExternalModel, add_external
from tests.identity.tenants import NOW
from tests.journal.serving import Server

PRICE = {"input": "0.5", "cached": "0.05", "output": "1.50", "currency": "EUR"}


@pytest.fixture
async def server(database: Database) -> AsyncGenerator[Server]:
    clock = ManualClock(NOW)
    async with database.transaction() as session:
        for name in ("large", "org/with-slash"):
            await add_external(session, SYSTEM, ExternalModel(name=name, url="http://127.0.0.1:9/v1"), clock)
    server = Server(router, database, clock, SYSTEM)
    install_refusals(server.app)
    async with server.client:
        yield server


async def put(server: Server, model: str = "large", **body: Any) -> Any:
    return await server.client.put(f"/v1/admin/prices/{model}", json=PRICE | body)


@pytest.mark.parametrize("model", ["large", "org/with-slash"])
async def test_a_price_is_set_shown_and_listed(server: Server, model: str) -> None:
    answer = await put(server, model)
    assert answer.status_code == 200
    shown = {**PRICE, "output": "1.5", "object": "price", "model": model, "effective_from": "2026-11-23T12:00:00Z"}
    assert answer.json() == shown
    assert await server.get(f"/v1/admin/prices/{model}") == shown
    assert await server.get("/v1/admin/prices") == {"object": "list", "data": [shown]}


async def test_a_price_to_come_counts_from_then(server: Server) -> None:
    await put(server)
    await put(server, input="9", effective_from="2027-01-01T00:00:00Z")
    assert (await server.get("/v1/admin/prices/large"))["input"] == "0.5"
    assert (await server.get("/v1/admin/prices/large", at="2027-01-01"))["input"] == "9"
    assert (await server.get("/v1/admin/prices", at="2027-01-01"))["data"][0]["input"] == "9"


async def test_a_model_without_a_price_in_that_currency_is_not_found(server: Server) -> None:
    missing = await server.client.get("/v1/admin/prices/large")
    assert (missing.status_code, missing.json()["code"]) == (404, "price_not_found")
    await put(server)
    assert await server.status("/v1/admin/prices/large", currency="EUR") == 200
    assert await server.status("/v1/admin/prices/large", currency="USD") == 404


@pytest.mark.parametrize("role", list(Role))
async def test_everyone_may_see_what_tokens_cost_and_the_operator_alone_sets_it(server: Server, role: Role) -> None:
    await put(server)
    server.actor = replace(SYSTEM, permissions=ROLE_PERMISSIONS[role])
    assert await server.status("/v1/admin/prices") == 200
    expected = 200 if role is Role.INSTALLATION_ADMIN else 403
    assert (await put(server)).status_code == expected
    server.actor = replace(SYSTEM, permissions=frozenset({Permission.INFERENCE_RUN}))
    assert await server.status("/v1/admin/prices") == 403


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"input": "-1"}, 400, "input"),
        ({"cached": "0.1234567891"}, 400, "cached"),
        ({"output": "1e3"}, 400, "output"),
        ({"output": "1000000.000000001"}, 400, "output"),
        ({"input": 0.5}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"currency": "euro"}, 400, "currency"),
        ({"effective_from": "2026-11-23T11:59:59Z"}, 400, "effective_from"),
        ({"surprise": "1"}, 400, "surprise"),
    ],
)
async def test_a_price_that_cannot_be_is_refused_naming_the_field(
    server: Server, body: dict[str, Any], status: int, field: str
) -> None:
    answer = await put(server, **body)
    assert (answer.status_code, answer.json()["param"]) == (status, field)
    assert (await server.get("/v1/admin/prices"))["data"] == []


async def test_an_unknown_model_has_no_price_to_set(server: Server) -> None:
    answer = await put(server, "nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
