"""Use cases of organisations: reading and changing them. None of them commits."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import SYSTEM, Actor, Permission, Role, checked_zones, require
from galerne.identity.changes import apply, entry, stored_zones
from galerne.identity.tables import Organisation, PlanChange, User, Workspace
from galerne.identity.tenants import KEEP, NewOrganisation, OrganisationChange, checked_name
from galerne.journal import append
from galerne.kernel import Clock, Forbidden, Ids, NotFound, Query, Script


async def found_organisation(
    session: AsyncSession, new: NewOrganisation, role: Role, ids: Ids, now: datetime
) -> tuple[Organisation, User]:
    """A new organisation with a workspace, and its first administrator in `role`; `BadRequest` for a bad field."""
    organisation = Organisation(
        id=ids.new(),
        name=checked_name(new.name),
        plan=new.plan,
        zones=stored_zones(checked_zones(new.zones)),
        created_at=now,
    )
    administrator = User(
        id=ids.new(),
        organisation_id=organisation.id,
        name=checked_name(new.administrator, param="administrator"),
        role=role,
        created_at=now,
    )
    session.add(organisation)
    await session.flush()
    session.add_all(
        [Workspace(id=ids.new(), organisation_id=organisation.id, name="default", created_at=now), administrator]
    )
    await session.flush()
    return organisation, administrator


async def list_organisations(session: AsyncSession) -> Sequence[Organisation]:
    """All organisations, oldest first: for the operator alone."""
    return (await session.scalars(select(Organisation).order_by(Organisation.created_at, Organisation.id))).all()


async def plans_by_organisation(session: AsyncSession) -> dict[str, str]:
    """Which plan each organisation has."""
    rows = await session.execute(select(Organisation.id, Organisation.plan))
    return {row.id: row.plan for row in rows}


async def plan_changes(session: AsyncSession, organisations: Collection[str]) -> dict[str, list[PlanChange]]:
    """How the plans of these organisations changed, oldest first; those that never changed are left out."""
    changes: dict[str, list[PlanChange]] = {}
    for change in await session.scalars(select(PlanChange).order_by(PlanChange.at)):
        if change.organisation_id in organisations:
            changes.setdefault(change.organisation_id, []).append(change)
    return changes


async def find_organisation(session: AsyncSession, organisation_id: str) -> Organisation:
    """The organisation with that id; `NotFound` if there is none."""
    row = await session.get(Organisation, organisation_id)
    if row is None:
        raise _unknown(organisation_id)
    return row


def plan_of_script(organisation_id: str) -> Script[str]:
    """The plan that an organisation has; `NotFound` if there is no such organisation."""
    rows = yield Query("SELECT plan FROM organisations WHERE id = :id", {"id": organisation_id})
    if not rows:
        raise _unknown(organisation_id)
    return str(rows[0][0])


async def change_organisation(
    session: AsyncSession, actor: Actor, change: OrganisationChange, clock: Clock
) -> Organisation:
    """The organisation of `actor`, changed; what changed is journalled.

    `Forbidden` for an actor that is bound to a workspace, and for a change of plan by anyone but the operator.
    """
    if actor.workspace_id is not None:
        raise Forbidden("A workspace's key cannot change the organisation; use a key of the whole organisation.")
    if change.plan is not KEEP:
        require(actor, Permission.PRICES_MANAGE)
    row = await find_organisation(session, actor.organisation_id)
    wanted = {
        "name": KEEP if change.name is KEEP else checked_name(change.name),
        "plan": change.plan,
        "zones": KEEP if change.zones is KEEP else stored_zones(checked_zones(change.zones)),
    }
    before = row.plan
    told = apply(row, wanted)
    if row.plan != before:
        await _record_plan(session, row, before, clock.now())
    if told:
        await session.flush()
        await append(session, [entry("changed", actor, row, clock.now(), told)])
    return row


async def _record_plan(session: AsyncSession, row: Organisation, before: str, now: datetime) -> None:
    changes = (await plan_changes(session, {row.id})).get(row.id, [])
    at = max(now, changes[-1].at + timedelta(microseconds=1)) if changes else now
    session.add(PlanChange(organisation_id=row.id, at=at, before=before, plan=row.plan))


async def operator_in(session: AsyncSession, organisation_id: str) -> Actor:
    """The operator at the command line, acting for one organisation: its journal shows that it was the system."""
    return replace(SYSTEM, organisation_id=(await find_organisation(session, organisation_id)).id)


def _unknown(organisation_id: str) -> NotFound:
    return NotFound(
        f"There is no organisation '{organisation_id[:100]}' here; see `galerne organisations list`.",
        param="organisation_id",
    )
