"""Wire types of identity's administration: input refuses unknown fields, output has no defaults."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from galerne.governance import Permission, checked_zones
from galerne.identity.keys import Dialect, NewKey
from galerne.identity.tables import ApiKey, Organisation, Workspace
from galerne.identity.tenants import NewWorkspace, OrganisationChange, WorkspaceChange
from galerne.kernel import BadRequest
from galerne.kernel.web import Text, UtcMoment


class KeyIn(BaseModel):
    """An API key to make."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    scopes: list[Permission] | None = None
    zones: list[Text] | None = None
    workspace_id: Text | None = None
    expires_at: UtcMoment | None = None
    strict: bool = False
    dialect: Dialect | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def new_key(self) -> NewKey:
        """The same, as identity takes it."""
        fields: dict[str, Any] = dict(self)
        fields["scopes"] = None if self.scopes is None else frozenset(self.scopes)
        fields["zones"] = checked_zones(self.zones)
        return NewKey(**fields)


class KeyOut(BaseModel):
    """An API key as a list shows it: never the secret."""

    model_config = ConfigDict(from_attributes=True)

    object: Literal["api_key"]
    id: str
    name: str
    prefix: str
    scopes: list[str]
    zones: list[str] | None
    workspace_id: str | None
    strict: bool
    dialect: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class CreatedKeyOut(KeyOut):
    """A key just made; `key` is the secret, shown this once."""

    key: str


class KeyList(BaseModel):
    """A page of API keys."""

    object: Literal["list"]
    data: list[KeyOut]


def key_fields(row: ApiKey) -> dict[str, object]:
    """The fields of `KeyOut` from a stored key."""
    names = (name for name in KeyOut.model_fields if name != "object")
    return {"object": "api_key", **{name: getattr(row, name) for name in names}}


class WorkspaceIn(BaseModel):
    """A workspace to make; `zones` null means wherever the organisation may go."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    zones: list[Text] | None = None
    trace_content: bool = False

    def new_workspace(self) -> NewWorkspace:
        """The same, as identity takes it."""
        return NewWorkspace(name=self.name, zones=checked_zones(self.zones), trace_content=self.trace_content)


class WorkspaceChangeIn(BaseModel):
    """What to change about a workspace: fields left out stay; `zones` null lifts the workspace's own pin."""

    model_config = ConfigDict(extra="forbid")

    name: Text | None = None
    zones: list[Text] | None = None
    trace_content: bool | None = None

    def change(self) -> WorkspaceChange:
        """The same, as identity takes it; `BadRequest` for a null where there must be a value."""
        return WorkspaceChange(**_given(self))


class WorkspaceOut(BaseModel):
    """A workspace."""

    object: Literal["workspace"]
    id: str
    name: str
    organization_id: str
    zones: list[str] | None
    trace_content: bool
    created_at: datetime


class WorkspaceList(BaseModel):
    """A page of workspaces, by name."""

    object: Literal["list"]
    data: list[WorkspaceOut]
    has_more: bool


class OrganizationChangeIn(BaseModel):
    """What to change about the organisation: fields left out stay; `zones` null lifts its pin."""

    model_config = ConfigDict(extra="forbid")

    name: Text | None = None
    zones: list[Text] | None = None

    def change(self) -> OrganisationChange:
        """The same, as identity takes it; `BadRequest` for a null where there must be a value."""
        return OrganisationChange(**_given(self))


class OrganizationOut(BaseModel):
    """An organisation; its plan is set by the operator of the installation."""

    object: Literal["organization"]
    id: str
    name: str
    plan: str
    zones: list[str] | None
    created_at: datetime


def workspace_fields(row: Workspace) -> dict[str, object]:
    """The fields of `WorkspaceOut` from a stored workspace."""
    names = ("id", "name", "zones", "trace_content", "created_at")
    shown = {name: getattr(row, name) for name in names}
    return {"object": "workspace", "organization_id": row.organisation_id, **shown}


def organisation_fields(row: Organisation) -> dict[str, object]:
    """The fields of `OrganizationOut` from a stored organisation."""
    names = ("id", "name", "plan", "zones", "created_at")
    return {"object": "organization", **{name: getattr(row, name) for name in names}}


def _given(body: BaseModel) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    for name, value in fields.items():
        if name == "zones":
            fields[name] = checked_zones(value)
        elif value is None:
            raise BadRequest(f"{name} cannot be null; leave it out to keep it as it is.", param=name)
    return fields
