"""Organisations, workspaces, people and API keys: who is calling."""

from galerne.identity.grants import resolve_key, resolve_key_script
from galerne.identity.keys import KEY_PREFIX, Dialect, KeyGrant, NewKey
from galerne.identity.organisations import (
    change_organisation,
    find_organisation,
    list_organisations,
    operator_in,
    plan_changes,
    plan_of_script,
    plans_by_organisation,
)
from galerne.identity.service import (
    bootstrap,
    create_key,
    create_organisation,
    find_installation_admin,
    find_key,
    list_keys,
    revoke_key,
)
from galerne.identity.tables import PlanChange
from galerne.identity.tenants import (
    DEFAULT_PLAN,
    KEEP,
    Keep,
    NewOrganisation,
    NewWorkspace,
    OrganisationChange,
    WorkspaceChange,
)
from galerne.identity.workspaces import change_workspace, create_workspace, find_workspace, list_workspaces

__all__ = [
    "DEFAULT_PLAN",
    "KEEP",
    "KEY_PREFIX",
    "Dialect",
    "Keep",
    "KeyGrant",
    "NewKey",
    "NewOrganisation",
    "NewWorkspace",
    "OrganisationChange",
    "PlanChange",
    "WorkspaceChange",
    "bootstrap",
    "change_organisation",
    "change_workspace",
    "create_key",
    "create_organisation",
    "create_workspace",
    "find_installation_admin",
    "find_key",
    "find_organisation",
    "find_workspace",
    "list_keys",
    "list_organisations",
    "list_workspaces",
    "operator_in",
    "plan_changes",
    "plan_of_script",
    "plans_by_organisation",
    "resolve_key",
    "resolve_key_script",
    "revoke_key",
]
