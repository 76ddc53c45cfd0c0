"""Use cases of workspaces: making, listing, reading and changing them. None of them commits."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor, Zones, check_within, checked_zones, common_zones
from galerne.identity.changes import apply, entry, plain, stored_zones
from galerne.identity.organisations import find_organisation
from galerne.identity.tables import Workspace
from galerne.identity.tenants import KEEP, NewWorkspace, WorkspaceChange, checked_name
from galerne.journal import append
from galerne.kernel import BadRequest, Clock, Forbidden, Ids, NotFound


async def create_workspace(session: AsyncSession, actor: Actor, new: NewWorkspace, ids: Ids, clock: Clock) -> Workspace:
    """A new workspace of `actor`'s organisation, journalled; its zones may only narrow the organisation's.

    `Forbidden` for an actor that is bound to a workspace itself, `BadRequest` for a bad field.
    """
    if actor.workspace_id is not None:
        raise Forbidden("A workspace's key cannot make workspaces; use a key of the whole organisation.")
    name, zones = checked_name(new.name), checked_zones(new.zones)
    organisation = await find_organisation(session, actor.organisation_id)
    check_within(zones, common_zones(organisation.zones))
    row = Workspace(
        id=ids.new(),
        organisation_id=organisation.id,
        name=name,
        zones=stored_zones(zones),
        trace_content=new.trace_content,
        created_at=clock.now(),
    )
    session.add(row)
    await session.flush()
    detail = {"name": row.name, "zones": plain(row.zones), "trace_content": row.trace_content}
    await append(session, [entry("created", actor, row, row.created_at, detail)])
    return row


async def list_workspaces(
    session: AsyncSession, actor: Actor, *, search: str = "", limit: int = 100, offset: int = 0
) -> Sequence[Workspace]:
    """The organisation's workspaces whose name holds `search`, by name; an actor bound to one sees that one."""
    query = select(Workspace).where(Workspace.organisation_id == actor.organisation_id)
    if actor.workspace_id is not None:
        query = query.where(Workspace.id == actor.workspace_id)
    if search:
        query = query.where(Workspace.name.icontains(search, autoescape=True))
    return (await session.scalars(query.order_by(Workspace.name, Workspace.id).limit(limit).offset(offset))).all()


async def find_workspace(session: AsyncSession, actor: Actor, workspace_id: str) -> Workspace:
    """That workspace of `actor`'s organisation; `NotFound` for another one's, and for any but its own if bound."""
    row = await session.scalar(
        select(Workspace).where(Workspace.id == workspace_id, Workspace.organisation_id == actor.organisation_id)
    )
    if row is None or actor.workspace_id not in (None, workspace_id):
        raise NotFound(f"There is no workspace '{workspace_id[:100]}' here.", param="workspace_id")
    return row


async def change_workspace(
    session: AsyncSession, actor: Actor, workspace_id: str, change: WorkspaceChange, clock: Clock
) -> Workspace:
    """That workspace, changed; what changed is journalled.

    An actor of the organisation may set any zones that the organisation has; one bound to the workspace may only narrow
    those that the workspace has.
    """
    row = await find_workspace(session, actor, workspace_id)
    if change.zones is not KEEP:
        await _check_zones(session, actor, row, checked_zones(change.zones))
    wanted = {
        "name": KEEP if change.name is KEEP else checked_name(change.name),
        "zones": KEEP if change.zones is KEEP else stored_zones(change.zones),
        "trace_content": change.trace_content,
    }
    told = apply(row, wanted)
    if told:
        await session.flush()
        await append(session, [entry("changed", actor, row, clock.now(), told)])
    return row


async def _check_zones(session: AsyncSession, actor: Actor, row: Workspace, zones: Zones) -> None:
    organisation = await find_organisation(session, actor.organisation_id)
    own = None if actor.workspace_id is None else row.zones
    if own is not None and zones is None:
        raise BadRequest("Only a key of the whole organisation can lift a workspace's pin.", param="zones")
    check_within(zones, common_zones(organisation.zones, own))
