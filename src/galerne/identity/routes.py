"""HTTP for API keys, workspaces and the own organisation, at the paths of Mistral's published admin API."""

from typing import Annotated

from fastapi import APIRouter, Query

from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.identity import service
from galerne.identity.organisations import change_organisation, find_organisation
from galerne.identity.schemas import (
    CreatedKeyOut,
    KeyIn,
    KeyList,
    KeyOut,
    OrganizationChangeIn,
    OrganizationOut,
    WorkspaceChangeIn,
    WorkspaceIn,
    WorkspaceList,
    WorkspaceOut,
    key_fields,
    organisation_fields,
    workspace_fields,
)
from galerne.identity.workspaces import change_workspace, create_workspace, find_workspace, list_workspaces
from galerne.kernel.web import Position, Reading, RequestClock, RequestIds, Text, Transaction

router = APIRouter(prefix="/v1/admin")

KeyAdmin = Annotated[Actor, requires(Permission.KEYS_MANAGE)]
WorkspaceAdmin = Annotated[Actor, requires(Permission.WORKSPACES_MANAGE)]
OrganizationAdmin = Annotated[Actor, requires(Permission.ORGANIZATION_MANAGE)]
Page = Annotated[int, Query(ge=0, le=2**31)]
PageSize = Annotated[int, Query(ge=1, le=1000)]


@router.post("/api-keys", status_code=201, tags=["API keys"])
async def create_api_key(
    body: KeyIn, actor: KeyAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> CreatedKeyOut:
    """Make an API key. The answer holds the secret; it is shown this once and stored only as a hash."""
    created = await service.create_key(session, actor, body.new_key(), ids, clock)
    return CreatedKeyOut.model_validate({**key_fields(created.row), "key": created.secret})


@router.get("/api-keys", tags=["API keys"])
async def list_api_keys(
    actor: KeyAdmin,
    session: Reading,
    limit: PageSize = 100,
    offset: Position = 0,
) -> KeyList:
    """List API keys, newest first, the revoked ones too."""
    rows = await service.list_keys(session, actor, limit=limit, offset=offset)
    return KeyList(object="list", data=[KeyOut.model_validate(key_fields(row)) for row in rows])


@router.delete("/api-keys/{key_id}", tags=["API keys"])
async def revoke_api_key(key_id: Text, actor: KeyAdmin, session: Transaction, clock: RequestClock) -> KeyOut:
    """Revoke an API key; requests with it are refused within two seconds."""
    return KeyOut.model_validate(key_fields(await service.revoke_key(session, actor, key_id, clock)))


@router.get("/workspaces", tags=["Workspaces"])
async def list_all_workspaces(
    actor: WorkspaceAdmin, session: Reading, search: Text = "", page: Page = 0, page_size: PageSize = 100
) -> WorkspaceList:
    """List the organisation's workspaces by name; `search` is a part of the name, the first `page` is 0."""
    rows = await list_workspaces(session, actor, search=search, limit=page_size + 1, offset=page * page_size)
    data = [WorkspaceOut.model_validate(workspace_fields(row)) for row in rows[:page_size]]
    return WorkspaceList(object="list", data=data, has_more=len(rows) > page_size)


@router.post("/workspaces", status_code=201, tags=["Workspaces"])
async def make_workspace(
    body: WorkspaceIn, actor: WorkspaceAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> WorkspaceOut:
    """Make a workspace. Its zones may only narrow those of the organisation."""
    row = await create_workspace(session, actor, body.new_workspace(), ids, clock)
    return WorkspaceOut.model_validate(workspace_fields(row))


@router.get("/workspaces/{workspace_id}", tags=["Workspaces"])
async def read_workspace(workspace_id: Text, actor: WorkspaceAdmin, session: Reading) -> WorkspaceOut:
    """Show one workspace of the organisation."""
    return WorkspaceOut.model_validate(workspace_fields(await find_workspace(session, actor, workspace_id)))


@router.patch("/workspaces/{workspace_id}", tags=["Workspaces"])
async def update_workspace(
    workspace_id: Text, body: WorkspaceChangeIn, actor: WorkspaceAdmin, session: Transaction, clock: RequestClock
) -> WorkspaceOut:
    """Change a workspace's name or zones, or whether what is written in it may be put into traces."""
    row = await change_workspace(session, actor, workspace_id, body.change(), clock)
    return WorkspaceOut.model_validate(workspace_fields(row))


@router.get("/organization", tags=["Organization"])
async def read_organization(actor: OrganizationAdmin, session: Reading) -> OrganizationOut:
    """Show the organisation of the key."""
    return OrganizationOut.model_validate(organisation_fields(await find_organisation(session, actor.organisation_id)))


@router.patch("/organization", tags=["Organization"])
async def update_organization(
    body: OrganizationChangeIn, actor: OrganizationAdmin, session: Transaction, clock: RequestClock
) -> OrganizationOut:
    """Change the organisation's name or zones."""
    row = await change_organisation(session, actor, body.change(), clock)
    return OrganizationOut.model_validate(organisation_fields(row))
