from dataclasses import replace

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from galerne.governance import Permission
from galerne.identity import (
    KEEP,
    NewWorkspace,
    OrganisationChange,
    WorkspaceChange,
    change_organisation,
    change_workspace,
    create_workspace,
    resolve_key,
)
from galerne.kernel import BadRequest, Database
from tests.identity.tenants import NOW, Tenants, two_tenants


async def test_a_grant_holds_what_key_workspace_and_organisation_all_allow(database: Database) -> None:
    tenants = await two_tenants(database, plan="team", zones=frozenset({"eu", "fr", "us"}))
    admin = tenants.stranger
    async with database.transaction() as session:
        new = NewWorkspace(name="w", zones=frozenset({"eu", "fr"}), trace_content=True)
        workspace = (await create_workspace(session, admin, new, tenants.ids, tenants.clock)).id
        unpinned = await tenants.key(session, admin)
        inside = await tenants.key(session, admin, workspace_id=workspace)
        pinned = await tenants.key(session, admin, workspace_id=workspace, zones=frozenset({"fr"}))
    assert unpinned.zones == {"eu", "fr", "us"}
    assert inside.zones == {"eu", "fr"}
    assert pinned.zones == {"fr"}
    assert [each.plan for each in (unpinned, inside, pinned)] == ["team"] * 3
    assert [each.trace_content for each in (unpinned, inside, pinned)] == [False, True, True]


async def test_without_any_pin_a_key_goes_anywhere_on_the_default_plan(tenants: Tenants) -> None:
    async with tenants.database.transaction() as session:
        grant = await tenants.key(session, tenants.stranger)
    assert (grant.zones, grant.plan, grant.trace_content) == (None, "developer", False)


async def test_zones_that_exclude_one_another_leave_nowhere(tenants: Tenants) -> None:
    async with tenants.database.transaction() as session:
        grant = await tenants.key(session, tenants.stranger, zones=frozenset({"fr"}))
        assert grant.zones == {"fr"}
        change = OrganisationChange(zones=frozenset({"us"}))
        await change_organisation(session, tenants.stranger, change, tenants.clock)
        again = await tenants.key(session, tenants.stranger)
    async with tenants.database.reading() as session:
        assert again.zones == {"us"}
        assert (await resolve_key(session, tenants.stranger_key, NOW)).zones == {"us"}


async def test_a_key_cannot_name_a_zone_that_its_workspace_or_organisation_leaves_out(database: Database) -> None:
    tenants = await two_tenants(database, zones=frozenset({"eu", "fr"}))
    async with database.transaction() as session:
        new = NewWorkspace(name="w", zones=frozenset({"fr"}))
        workspace = (await create_workspace(session, tenants.stranger, new, tenants.ids, tenants.clock)).id
        for terms in ({"zones": frozenset({"us"})}, {"zones": frozenset({"eu"}), "workspace_id": workspace}):
            with pytest.raises(BadRequest, match="only be narrowed") as refusal:
                await tenants.key(session, tenants.stranger, **terms)
            assert refusal.value.param == "zones"


async def test_a_pinned_key_passes_its_pin_on_to_the_keys_it_makes(tenants: Tenants) -> None:
    async with tenants.database.transaction() as session:
        maker = (await tenants.key(session, tenants.stranger, zones=frozenset({"eu", "fr"}))).actor
        assert (await tenants.key(session, maker)).zones == {"eu", "fr"}
        assert (await tenants.key(session, maker, zones=frozenset({"fr"}))).zones == {"fr"}
        with pytest.raises(BadRequest, match="us is not among eu, fr"):
            await tenants.key(session, maker, zones=frozenset({"us"}))


async def test_a_workspaces_own_administrator_can_narrow_its_pin_but_not_widen_it(database: Database) -> None:
    tenants = await two_tenants(database, zones=frozenset({"eu", "fr", "us"}))
    admin, clock = tenants.stranger, tenants.clock
    async with database.transaction() as session:
        new = NewWorkspace(name="w", zones=frozenset({"eu", "fr"}))
        workspace = (await create_workspace(session, admin, new, tenants.ids, clock)).id
        bound = replace(admin, workspace_id=workspace)
        for wider in (None, frozenset({"eu", "us"})):
            with pytest.raises(BadRequest):
                await change_workspace(session, bound, workspace, WorkspaceChange(zones=wider), clock)
        row = await change_workspace(session, bound, workspace, WorkspaceChange(zones=frozenset({"fr"})), clock)
        assert row.zones == ["fr"]
        row = await change_workspace(session, admin, workspace, WorkspaceChange(zones=frozenset({"us"})), clock)
        assert row.zones == ["us"]
        with pytest.raises(BadRequest, match="jp is not among"):
            await change_workspace(session, admin, workspace, WorkspaceChange(zones=frozenset({"jp"})), clock)
        row = await change_workspace(session, admin, workspace, WorkspaceChange(zones=None, name=KEEP), clock)
        assert (row.zones, row.name) == (None, "w")


async def test_resolving_a_key_is_one_query(tenants: Tenants) -> None:
    ran: list[str] = []

    def remember(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        ran.append(statement)

    event.listen(Engine, "before_cursor_execute", remember)
    try:
        async with tenants.database.reading() as session:
            grant = await resolve_key(session, tenants.stranger_key, NOW)
    finally:
        event.remove(Engine, "before_cursor_execute", remember)
    assert Permission.ORGANIZATION_MANAGE in grant.actor.permissions
    assert len([statement for statement in ran if "SELECT" in statement]) == 1
