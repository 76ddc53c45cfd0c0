"""Plans' versions: publishing one, and which is the newest. None of it commits."""

from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.plans import Plan
from galerne.billing.subscriptions.offers import Offer, PlanVersion, check_offer
from galerne.billing.subscriptions.tables import PlanVersionRow
from galerne.billing.tables import PlanRow
from galerne.governance import Actor, Permission, require
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, NotFound


async def publish_plan(session: AsyncSession, actor: Actor, plan: Plan, offer: Offer, clock: Clock) -> PlanVersion:
    """The next version of a plan, for whoever takes it from now on, journalled; a new plan begins with version 1.

    The plan's weight and tier count at once for all who have it; fees and windows for new subscribers and for those who
    change. Raises `BadRequest` for an offer that cannot be.
    """
    require(actor, Permission.PRICES_MANAGE)
    check_offer(offer)
    if not (plan.id.isascii() and plan.id.replace("-", "").isalnum() and len(plan.id) <= 40):
        raise BadRequest("A plan's name has 1 to 40 letters, digits and hyphens.", param="plan")
    row = await session.get(PlanRow, plan.id, with_for_update=True)
    if row is None:
        row = PlanRow(id=plan.id, weight=plan.weight, tier=plan.tier, description=plan.description)
        session.add(row)
    row.weight, row.tier, row.description = plan.weight, plan.tier, plan.description
    await session.flush()
    newest = await _newest(session, plan.id)
    version = PlanVersion(plan_id=plan.id, version=1 if newest is None else newest.version + 1, offer=offer)
    now = clock.now()
    body = msgspec.to_builtins(offer)
    session.add(PlanVersionRow(plan_id=plan.id, version=version.version, offer=body, created_at=now))
    await session.flush()
    await append(session, [_entry(actor, version, plan, now)])
    return version


async def plan_version(session: AsyncSession, plan_id: str) -> PlanVersion:
    """The newest version of a plan; `NotFound` for a plan that there is not, or that was never offered."""
    found = await _newest(session, plan_id)
    if found is None:
        raise NotFound(
            f"There is no plan '{plan_id[:40]}'; `galerne plans list` shows what there is.",
            code="plan_not_found",
            param="plan",
        )
    return found


async def list_plan_versions(session: AsyncSession) -> list[PlanVersion]:
    """Every version of every plan, by plan and then by version."""
    query = select(PlanVersionRow).order_by(PlanVersionRow.plan_id, PlanVersionRow.version)
    return [_version(row) for row in await session.scalars(query)]


async def find_plan_version(session: AsyncSession, plan_id: str, version: int) -> PlanVersion:
    """That version of that plan; `NotFound` if there is none."""
    row = await session.get(PlanVersionRow, (plan_id, version))
    if row is None:
        raise NotFound(f"There is no version {version} of '{plan_id[:40]}'.", code="plan_not_found", param="plan")
    return _version(row)


async def _newest(session: AsyncSession, plan_id: str) -> PlanVersion | None:
    query = select(PlanVersionRow).where(PlanVersionRow.plan_id == plan_id)
    row = await session.scalar(query.order_by(PlanVersionRow.version.desc()).limit(1))
    return None if row is None else _version(row)


def _version(row: PlanVersionRow) -> PlanVersion:
    return PlanVersion(plan_id=row.plan_id, version=row.version, offer=msgspec.convert(row.offer, Offer))


def _entry(actor: Actor, version: PlanVersion, plan: Plan, at: datetime) -> Entry:
    fees = " ".join(f"{fee.nano} nano-{fee.currency}/{fee.interval}" for fee in version.offer.fees)
    detail = {"version": version.version, "weight": plan.weight, "tier": plan.tier, "fees": fees or "none"}
    return Entry(action="plan.published", actor=actor, resource=f"plan:{plan.id}", outcome="done", at=at, detail=detail)
