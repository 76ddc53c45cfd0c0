"""Workspaces over HTTP and below it: who sees which, who changes what, and what the journal says of it."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from galerne.apps.refusals import install_refusals
from galerne.governance import ROLE_PERMISSIONS, Role
from galerne.identity import NewWorkspace, create_workspace
from galerne.identity.routes import router
from tests.identity.tenants import Tenants
from tests.journal.serving import Server

WORKSPACES = "/v1/admin/workspaces"


@pytest.fixture
async def server(tenants: Tenants) -> AsyncGenerator[Server]:
    server = Server(router, tenants.database, tenants.clock, tenants.operator)
    install_refusals(server.app)
    async with server.client:
        yield server


async def made(server: Server, **body: Any) -> dict[str, Any]:
    answer = await server.client.post(WORKSPACES, json={"name": "w", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_workspace_is_made_read_listed_and_changed(server: Server, tenants: Tenants) -> None:
    workspace = await made(server, zones=["fr", "eu"])
    assert workspace | {"id": "", "created_at": ""} == {
        "object": "workspace",
        "id": "",
        "name": "w",
        "organization_id": tenants.operator.organisation_id,
        "zones": ["eu", "fr"],
        "trace_content": False,
        "created_at": "",
    }
    path = f"{WORKSPACES}/{workspace['id']}"
    assert await server.get(path) == workspace
    changed = (await server.client.patch(path, json={"name": "x", "zones": None})).json()
    assert changed == workspace | {"name": "x", "zones": None}
    assert [each["name"] for each in (await server.get(WORKSPACES))["data"]] == ["default", "x"]
    told = {"name": "x", "name_was": "w", "zones": "anywhere", "zones_was": "eu fr"}
    assert await tenants.journal("workspace.changed") == [told]


async def test_a_list_is_searched_and_paged(server: Server) -> None:
    for name in ("beta", "alpha", "100%", "Alphabet"):
        await made(server, name=name)
    found = await server.get(WORKSPACES, search="alpha", page_size=1)
    assert found["has_more"]
    rest = await server.get(WORKSPACES, search="alpha", page_size=1, page=1)
    assert {each["name"] for each in found["data"] + rest["data"]} == {"alpha", "Alphabet"}
    assert not rest["has_more"]
    assert [each["name"] for each in (await server.get(WORKSPACES, search="%"))["data"]] == ["100%"]


async def test_another_organisations_workspace_is_not_found(server: Server, tenants: Tenants) -> None:
    mine = (await made(server))["id"]
    server.actor = tenants.stranger
    body = {"name": "mine now", "zones": ["eu"], "trace_content": True}
    assert (await server.client.get(f"{WORKSPACES}/{mine}")).status_code == 404
    assert (await server.client.patch(f"{WORKSPACES}/{mine}", json=body)).status_code == 404
    assert mine not in str(await server.get(WORKSPACES))
    key = await server.client.post("/v1/admin/api-keys", json={"name": "n", "workspace_id": mine})
    assert (key.status_code, key.json()["param"]) == (404, "workspace_id")
    server.actor = tenants.operator
    assert (await server.get(f"{WORKSPACES}/{mine}"))["name"] == "w"


async def test_a_workspaces_key_sees_and_changes_its_own_alone_and_makes_none(server: Server, tenants: Tenants) -> None:
    mine, theirs = (await made(server))["id"], (await made(server))["id"]
    server.actor = replace(tenants.operator, workspace_id=mine, permissions=ROLE_PERMISSIONS[Role.WORKSPACE_ADMIN])
    assert [each["id"] for each in (await server.get(WORKSPACES))["data"]] == [mine]
    assert (await server.client.patch(f"{WORKSPACES}/{mine}", json={"name": "ours"})).status_code == 200
    assert (await server.client.patch(f"{WORKSPACES}/{theirs}", json={"name": "ours"})).status_code == 404
    assert (await server.client.post(WORKSPACES, json={"name": "n"})).status_code == 403
    for method in ("GET", "PATCH"):
        assert (await server.client.request(method, "/v1/admin/organization", json={})).status_code == 403


@pytest.mark.parametrize(
    ("role", "status"),
    [
        (Role.ORGANIZATION_ADMIN, 200),
        (Role.WORKSPACE_ADMIN, 200),
        (Role.DEVELOPER, 403),
        (Role.BILLING, 403),
    ],
)
async def test_only_administrators_let_text_into_traces_and_the_journal_says_so(
    server: Server, tenants: Tenants, role: Role, status: int
) -> None:
    workspace = (await made(server))["id"]
    server.actor = replace(tenants.operator, permissions=ROLE_PERMISSIONS[role])
    answer = await server.client.patch(f"{WORKSPACES}/{workspace}", json={"trace_content": True})
    assert answer.status_code == status
    told = [{"trace_content": True, "trace_content_was": False}] if status == 200 else []
    assert await tenants.journal("workspace.changed") == told


async def test_the_organisation_is_read_and_changed_but_its_plan_is_not(server: Server, tenants: Tenants) -> None:
    server.actor = tenants.stranger
    shown = await server.get("/v1/admin/organization")
    assert (shown["object"], shown["name"], shown["plan"], shown["zones"]) == (
        "organization",
        "other",
        "developer",
        None,
    )
    changed = await server.client.patch("/v1/admin/organization", json={"zones": ["fr"]})
    assert changed.json() == shown | {"zones": ["fr"]}
    refused = await server.client.patch("/v1/admin/organization", json={"plan": "enterprise"})
    assert (refused.status_code, refused.json()["param"]) == (400, "plan")
    server.actor = tenants.operator
    assert (await server.get("/v1/admin/organization"))["name"] == "default"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "\u0000"}, "name"),
        ({"zones": []}, "zones"),
        ({"zones": ["FR"]}, "zones"),
        ({"zones": "fr"}, "zones"),
        ({"trace_content": "maybe"}, "trace_content"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_a_workspace_that_cannot_be_is_refused_naming_the_field(
    server: Server, body: dict[str, Any], field: str
) -> None:
    path = f"{WORKSPACES}/{(await made(server))['id']}"
    for method, target, sent in (("POST", WORKSPACES, {"name": "n"} | body), ("PATCH", path, body)):
        answer = await server.client.request(method, target, json=sent)
        assert (answer.status_code, answer.json()["param"]) == (400, field)


@pytest.mark.parametrize("field", ["name", "trace_content"])
async def test_a_null_where_a_value_must_be_is_refused(server: Server, field: str) -> None:
    path = f"{WORKSPACES}/{(await made(server))['id']}"
    answer = await server.client.patch(path, json={field: None})
    assert (answer.status_code, answer.json()["param"]) == (400, field)


async def test_zones_of_a_key_are_set_and_shown_over_http(server: Server, tenants: Tenants) -> None:
    key = (await server.client.post("/v1/admin/api-keys", json={"name": "n", "zones": ["fr", "eu"]})).json()
    assert key["zones"] == ["eu", "fr"]
    assert [each["zones"] for each in (await server.get("/v1/admin/api-keys"))["data"]] == [["eu", "fr"], None]
    assert (await tenants.journal("api_key.created"))[-1]["zones"] == "eu fr"


async def test_making_a_workspace_is_journalled(tenants: Tenants) -> None:
    async with tenants.database.transaction() as session:
        new = NewWorkspace(name="w", trace_content=True)
        await create_workspace(session, tenants.stranger, new, tenants.ids, tenants.clock)
    told = {"name": "w", "zones": "anywhere", "trace_content": True}
    assert await tenants.journal("workspace.created") == [told]
