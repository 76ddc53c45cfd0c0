"""Plans and subscriptions over HTTP."""

from collections.abc import AsyncGenerator

import pytest

from galerne.apps.refusals import install_refusals
from galerne.billing.subscriptions import subscriptions_router
from galerne.kernel import Database
from tests.identity.tenants import Tenants, two_tenants
from tests.journal.serving import Server


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    return await two_tenants(database)


@pytest.fixture
async def server(tenants: Tenants) -> AsyncGenerator[Server]:
    server = Server(subscriptions_router, tenants.database, tenants.clock, tenants.stranger)
    install_refusals(server.app)
    async with server.client:
        yield server


async def test_an_organisation_subscribes_changes_and_sees_what_is_due(server: Server) -> None:
    assert await server.status("/v1/admin/subscription") == 404
    made = await server.client.post("/v1/admin/subscription", json={"plan": "pro", "time_zone": "Europe/Paris"})
    assert (made.status_code, made.json()["status"], made.json()["item"]["fee"]) == (201, "active", "14.99")
    asked = {"what": "change", "plan": "team", "seats": 2, "request_id": "r"}
    for _ in range(2):
        changed = await server.client.post("/v1/admin/subscription/changes", json=asked)
        assert (changed.status_code, changed.json()["item"]["seats"]) == (200, 2)
    due = (await server.get("/v1/admin/subscription/charges", until="2026-11-23T12:00:01Z"))["data"]
    assert [(line["kind"], line["amount"]) for line in due] == [
        ("recurring", "14.99"),
        ("proration", "-14.99"),
        ("proration", "49.98"),
    ]
    coming = (await server.get("/v1/admin/subscription/charges", until="2027-01-01"))["data"]
    assert coming[3]["due_at"] == "2026-12-23T12:00:00Z"


async def test_the_operator_publishes_a_plan_and_everyone_sees_it(server: Server, tenants: Tenants) -> None:
    fee = {"interval": "month", "currency": "EUR", "amount": "9.50"}
    plan = {"plan": "student", "weight": 1, "tier": "standard", "description": "For students.", "fees": [fee]}
    assert (await server.client.post("/v1/admin/plans", json=plan)).status_code == 403
    server.actor = tenants.operator
    made = await server.client.post("/v1/admin/plans", json=plan)
    assert (made.status_code, made.json()["version"], made.json()["fees"]) == (201, 1, [fee])
    assert "student" in [each["plan"] for each in (await server.get("/v1/admin/plans"))["data"]]
    for wrong in ({"fees": [fee | {"amount": "-1"}]}, {"fees": [fee, fee]}, {"windows": [{"quantity": "tokens"}]}):
        assert (await server.client.post("/v1/admin/plans", json=plan | wrong)).status_code == 400


async def test_the_same_request_id_with_another_body_is_refused(server: Server) -> None:
    await server.client.post("/v1/admin/subscription", json={"plan": "team", "request_id": "r"})
    answer = await server.client.post("/v1/admin/subscription", json={"plan": "team", "seats": 5, "request_id": "r"})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
