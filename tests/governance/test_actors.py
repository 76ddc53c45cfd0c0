from dataclasses import replace

import pytest
from fastapi import Request

from galerne.governance import ROLE_PERMISSIONS, SYSTEM, Actor, ActorKind, Permission, Role, require
from galerne.governance.access import requires
from galerne.kernel import Forbidden


def actor(*permissions: Permission) -> Actor:
    return Actor(ActorKind.API_KEY, "k", "o", None, frozenset(permissions))


def test_every_role_says_what_it_may_do() -> None:
    assert set(ROLE_PERMISSIONS) == set(Role)
    assert ROLE_PERMISSIONS[Role.INSTALLATION_ADMIN] == set(Permission)
    assert Permission.KEYS_MANAGE not in ROLE_PERMISSIONS[Role.DEVELOPER]


@pytest.mark.parametrize("permission", list(Permission))
def test_a_permission_is_held_or_refused_by_name_and_never_inferred(permission: Permission) -> None:
    require(actor(permission), permission)
    require(SYSTEM, permission)
    with pytest.raises(Forbidden, match=permission) as refusal:
        require(actor(*(set(Permission) - {permission})), permission)
    assert (refusal.value.status, refusal.value.code) == (403, "insufficient_permissions")


async def test_a_route_hands_out_its_actor_only_with_the_permission_it_declares() -> None:
    request = Request({"type": "http", "state": {"actor": actor(Permission.USAGE_READ)}})
    assert (await requires(Permission.USAGE_READ).dependency(request)).permissions == {Permission.USAGE_READ}
    with pytest.raises(Forbidden):
        await requires(Permission.KEYS_MANAGE).dependency(request)


async def test_a_route_for_the_whole_organisation_refuses_who_acts_for_one_workspace() -> None:
    whole = actor(Permission.BILLING_READ)
    dependency = requires(Permission.BILLING_READ, whole_organisation=True).dependency
    assert await dependency(Request({"type": "http", "state": {"actor": whole}})) is whole
    with pytest.raises(Forbidden, match="one workspace"):
        await dependency(Request({"type": "http", "state": {"actor": replace(whole, workspace_id="w")}}))
