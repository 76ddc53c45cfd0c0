import json
from collections.abc import AsyncGenerator
from inspect import isasyncgenfunction, iscoroutinefunction
from pathlib import Path

import httpx2
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from galerne.apps import control_plane, health
from galerne.apps.api import create_app
from galerne.apps.installation import OPEN_PATHS, Installation
from galerne.apps.wiring import InstallationReplicas, is_inside
from galerne.engines import Supervisor
from galerne.gateway import Gateway
from galerne.identity import bootstrap
from galerne.kernel import Database, Ids, InvariantViolated, Settings, SystemClock
from galerne.kernel.logs import captured_logs
from tests.gateway.outages import hanging

KEY = "an-admin-key-for-tests"
HUGE = 2**63


@pytest.fixture
async def client(database: Database, ids: Ids, tmp_path: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    clock, settings, supervisor, registry = (
        SystemClock(),
        Settings(data=tmp_path),
        Supervisor(SystemClock()),
        CollectorRegistry(),
    )
    async with database.transaction() as session:
        await bootstrap(session, ids, clock, KEY)
    replicas = InstallationReplicas(settings, supervisor)
    gateway = Gateway(database=database, settings=settings, clock=clock, ids=ids, replicas=replicas, registry=registry)
    app = create_app(Installation(settings, database, clock, ids, supervisor, gateway, registry))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {KEY}"}
    await gateway.start()
    async with httpx2.AsyncClient(transport=transport, base_url="http://galerne", headers=headers) as client:
        yield client
    await gateway.stop()


async def test_a_key_made_over_http_works_and_is_listed_without_its_secret(client: httpx2.AsyncClient) -> None:
    made = (await client.post("/v1/admin/api-keys", json={"name": "n", "scopes": ["usage:read"]})).json()
    listed = await client.get("/v1/admin/api-keys")
    assert made["key"].startswith(made["prefix"])
    assert made["key"] not in listed.text
    mine = {"authorization": f"Bearer {made['key']}"}
    assert (await client.get("/v1/admin/usage", headers=mine)).status_code == 200
    refused = await client.get("/v1/admin/api-keys", headers=mine)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_permissions")


async def test_a_workspaces_key_sees_and_signs_nothing_of_the_whole_organisations_billing(
    client: httpx2.AsyncClient,
) -> None:
    workspace = (await client.post("/v1/admin/workspaces", json={"name": "w"})).json()["id"]
    asked = {"name": "n", "scopes": ["billing:read", "billing:manage"], "workspace_id": workspace}
    mine = {"authorization": f"Bearer {(await client.post('/v1/admin/api-keys', json=asked)).json()['key']}"}
    span = "start=2026-01-01&end=2026-02-01"
    for path in (
        *("v1/payments", "v1/payments/p", "v1/admin/balance", "v1/admin/credits", "v1/admin/subscription"),
        *(
            "v1/admin/balance/a/statement",
            "v1/admin/subscription/charges",
            "v1/admin/contracts",
            "v1/admin/contracts/c",
            "v1/admin/contracts/c/charges",
        ),
        *("v1/admin/budgets", "v1/admin/budget-alerts", f"v1/admin/showback?{span}"),
    ):
        answer = await client.get(f"/{path}", headers=mine)
        assert (path, answer.status_code) == (path, 403)
        assert (await client.get(f"/{path}")).status_code in (200, 404)
    signature = {"version": 1, "sha256": "0" * 64, "signed_by": "Ada"}
    signed = await client.post("/v1/admin/contracts/c/sign", json=signature, headers=mine)
    assert signed.status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("GET", f"/v1/admin/api-keys?offset={HUGE}", None, "offset"),
        ("GET", f"/v1/admin/audit-logs?after={HUGE}", None, "after"),
        ("GET", "/v1/admin/audit-logs?event_type=%00", None, "event_type.0"),
        ("GET", "/v1/admin/usage?model=%00", None, "model"),
        ("GET", "/v1/admin/usage?end=9999-12-31T23:59:59-05:00", None, "end"),
        ("GET", "/v1/admin/usage?start=0001-01-01T00:00:00%2B05:00", None, "start"),
        ("DELETE", "/v1/admin/api-keys/%00", None, "key_id"),
        ("POST", "/v1/admin/api-keys", '{"name": "\\ud800"}', "name"),
        ("POST", "/v1/admin/api-keys", '{"name": "a\\u0000"}', "name"),
        ("POST", "/v1/admin/api-keys", '{"name": "n", "requests_per_minute": 2147483648}', "requests_per_minute"),
        ("POST", "/v1/admin/api-keys", '{"name": "n", "expires_at": "9999-12-31T23:59:59-01:00"}', "expires_at"),
        ("POST", "/v1/admin/api-keys", '{"name": "n", "surprise": 1}', "surprise"),
        ("POST", "/v1/admin/api-keys", "{", None),
        ("GET", "/v1/models/%00", None, "name"),
    ],
)
async def test_a_value_that_cannot_be_is_the_callers_mistake_and_names_the_field(
    client: httpx2.AsyncClient, method: str, path: str, body: str | None, param: str | None
) -> None:
    answer = await client.request(method, path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["param"]) == (400, param)


async def test_a_refusal_speaks_the_callers_dialect_and_carries_the_request_id(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/models/nothing", headers={"user-agent": "mistral-client-python/3.7.0"})
    assert (answer.status_code, answer.json()["code"]) == (404, "1500")
    assert answer.headers["x-request-id"] == answer.headers["mistral-correlation-id"]
    assert (await client.get("/v1/models/nothing")).json()["error"]["code"] == "model_not_found"


async def test_an_unknown_path_is_a_json_404_and_not_a_page(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_no_route_answers_without_a_key_but_those_that_say_nothing_of_tenants(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    nobody = {"authorization": ""}
    for path, operations in document["paths"].items():
        for method in operations:
            status = (await client.request(method.upper(), path, headers=nobody)).status_code
            assert (status == 401) == (path not in OPEN_PATHS), (method, path, status)


async def test_a_body_that_is_too_large_is_refused_unread(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/admin/api-keys", content=b"x" * (5 * 1024 * 1024))
    assert answer.status_code == 413


async def test_a_defect_tells_the_caller_nothing_and_the_log_where(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane.identity_routes.service, "list_keys", lambda *_, **__: {}["a SECRET value"])
    with captured_logs() as logs:
        answer = await client.get("/v1/admin/api-keys")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "SECRET" not in answer.text + json.dumps(logs)
    assert [line["kind"] for line in logs if line["event"] == "defect"] == ["KeyError"]


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "172.31.0.1", "192.168.1.1", "[fd00::1]"]
)
def test_a_private_address_is_inside(inside: str) -> None:
    assert is_inside(f"http://{inside}:8000/v1")


@pytest.mark.parametrize(
    "outside", ["169.254.169.254", "8.8.8.8", "0.0.0.0", "203.0.113.7", "[fe80::1]", "gpu.example.com", "172.32.0.1"]
)
def test_any_other_address_is_outside(outside: str) -> None:
    assert not is_inside(f"http://{outside}/v1")


def test_a_route_without_a_permission_stops_the_control_plane_from_being_made() -> None:
    app = control_plane.FastAPI()
    app.add_api_route("/v1/open-door", lambda: None)
    with pytest.raises(InvariantViolated, match="/v1/open-door declares no permission"):
        control_plane._check_permissions(app)


async def test_a_control_plane_that_cannot_be_loaded_is_told_in_dialect_and_tried_again(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken, captured_logs() as logs:
        broken.setattr(control_plane, "ROUTERS", ("none",))
        answers = [await client.get("/v1/admin/api-keys") for _ in range(2)]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [(500, "internal_error")] * 2
    assert [line["event"] for line in logs] == ["defect", "defect"]
    assert (await client.get("/v1/admin/api-keys")).status_code == 200


async def test_it_is_not_ready_while_usage_cannot_be_written(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client.get("/readyz")).status_code == 200
    monkeypatch.setattr(Gateway, "settlement_failing", True)
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["parts"]["settlement"] == "usage cannot be written"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_database_that_hangs_is_told_soon_and_found_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PATIENCE_S", 0.2)
    assert await health._database_problem(database) is None
    async with hanging(database):
        assert await health._database_problem(database) == "does not answer"
    assert await health._database_problem(database) is None


def test_no_route_nor_what_it_depends_on_takes_the_detour_over_a_thread() -> None:
    def plain(one: Dependant) -> list[str]:
        calls = (one.call, getattr(one.call, "__call__", None))  # noqa: B004 - a coroutine's, of what is no function
        waits = any(iscoroutinefunction(call) or isasyncgenfunction(call) for call in calls)
        return [*([] if waits else [repr(one.call)]), *(name for each in one.dependencies for name in plain(each))]

    routes = [route for router in control_plane.ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    assert len(routes) > 50
    assert [name for route in routes for name in plain(route.dependant)] == []
