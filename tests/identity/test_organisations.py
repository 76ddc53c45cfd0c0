from dataclasses import replace

import pytest

from galerne.governance import ROLE_PERMISSIONS, Permission, Role
from galerne.identity import (
    NewKey,
    NewOrganisation,
    OrganisationChange,
    change_organisation,
    create_key,
    create_organisation,
    find_organisation,
    list_keys,
    list_organisations,
    list_workspaces,
    operator_in,
    resolve_key,
)
from galerne.kernel import BadRequest, Forbidden, Ids, ManualClock, NotFound
from tests.identity.tenants import NOW, Tenants


async def test_an_organisation_comes_with_a_workspace_and_an_administrator_whose_key_works(tenants: Tenants) -> None:
    new = NewOrganisation(name=" Banque X ", plan="enterprise", zones=frozenset({"fr", "eu"}), administrator="Ada")
    async with tenants.database.transaction() as session:
        organisation, key = await create_organisation(session, new, tenants.ids, tenants.clock)
        grant = await resolve_key(session, key.secret, NOW)
        workspaces = await list_workspaces(session, grant.actor)
    assert (organisation.name, organisation.plan, organisation.zones) == ("Banque X", "enterprise", ["eu", "fr"])
    assert grant.actor.organisation_id == organisation.id
    assert grant.actor.permissions == ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN]
    assert [each.name for each in workspaces] == ["default"]
    told = {"name": "Banque X", "plan": "enterprise", "zones": "eu fr"}
    assert (await tenants.journal("organisation.created"))[-1] == told


def test_who_administers_one_organisation_does_not_administer_what_all_share() -> None:
    shared = {Permission.PRICES_MANAGE, Permission.MODELS_MANAGE, Permission.PAYMENTS_MANAGE}
    assert shared & ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN] == set()
    assert shared <= ROLE_PERMISSIONS[Role.INSTALLATION_ADMIN]


async def test_a_change_is_journalled_with_what_was_and_no_change_is_not(tenants: Tenants) -> None:
    change = OrganisationChange(name="renamed", zones=frozenset({"eu"}))
    async with tenants.database.transaction() as session:
        await change_organisation(session, tenants.stranger, change, tenants.clock)
        row = await change_organisation(session, tenants.stranger, change, tenants.clock)
        assert (row.name, row.plan, row.zones) == ("renamed", "developer", ["eu"])
    told = {"name": "renamed", "name_was": "other", "zones": "eu", "zones_was": "anywhere"}
    assert await tenants.journal("organisation.changed") == [told]


async def test_only_the_operator_changes_a_plan(tenants: Tenants) -> None:
    change = OrganisationChange(plan="enterprise")
    async with tenants.database.transaction() as session:
        with pytest.raises(Forbidden):
            await change_organisation(session, tenants.stranger, change, tenants.clock)
        operator = await operator_in(session, tenants.stranger.organisation_id)
        assert (await change_organisation(session, operator, change, tenants.clock)).plan == "enterprise"
        assert (await resolve_key(session, tenants.stranger_key, NOW)).plan == "enterprise"


async def test_a_workspaces_key_does_not_change_its_organisation(tenants: Tenants) -> None:
    bound = replace(tenants.stranger, workspace_id="w")
    async with tenants.database.transaction() as session:
        with pytest.raises(Forbidden):
            await change_organisation(session, bound, OrganisationChange(name="mine"), tenants.clock)


async def test_the_operator_makes_keys_for_an_organisation_in_its_administrators_name(tenants: Tenants) -> None:
    async with tenants.database.transaction() as session:
        operator = await operator_in(session, tenants.stranger.organisation_id)
        made = await create_key(session, operator, NewKey(name="n"), tenants.ids, tenants.clock)
        grant = await resolve_key(session, made.secret, NOW)
        assert made.row in await list_keys(session, tenants.stranger)
        assert made.row not in await list_keys(session, tenants.operator)
    assert grant.actor.organisation_id == tenants.stranger.organisation_id
    assert Permission.PRICES_MANAGE not in grant.actor.permissions


async def test_an_organisation_that_is_not_there_is_not_found(tenants: Tenants) -> None:
    async with tenants.database.reading() as session:
        assert [each.name for each in await list_organisations(session)] == ["default", "other"]
        for missing in (find_organisation, operator_in):
            with pytest.raises(NotFound, match="nobody"):
                await missing(session, "nobody")


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewOrganisation(name=" "), "name"),
        (NewOrganisation(name="x" * 201), "name"),
        (NewOrganisation(name="a\nb"), "name"),
        (NewOrganisation(name="n", zones=frozenset()), "zones"),
        (NewOrganisation(name="n", zones=frozenset({"EU"})), "zones"),
        (NewOrganisation(name="n", administrator=""), "administrator"),
    ],
)
async def test_an_organisation_that_cannot_be_is_refused_naming_the_field(
    new: NewOrganisation, field: str, tenants: Tenants
) -> None:
    async with tenants.database.transaction() as session:
        with pytest.raises(BadRequest) as refusal:
            await create_organisation(session, new, Ids(), ManualClock(NOW))
    assert refusal.value.param == field
