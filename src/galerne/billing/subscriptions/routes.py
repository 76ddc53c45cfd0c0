"""HTTP for plans and subscriptions: whoever manages an organisation's billing asks, the operator publishes plans."""

from typing import Annotated

from fastapi import APIRouter, Query

from galerne.billing.subscriptions import service
from galerne.billing.subscriptions.catalogue import list_plan_versions, publish_plan
from galerne.billing.subscriptions.schemas import (
    AskIn,
    ChargeList,
    ChargeOut,
    OrderIn,
    PlanIn,
    PlanVersionList,
    PlanVersionOut,
    SubscriptionOut,
    charge_fields,
    plan_version_fields,
    subscription_fields,
)
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel.web import Reading, RequestClock, RequestIds, Transaction, UtcMoment

router = APIRouter(prefix="/v1/admin", tags=["Subscriptions"])

PriceReader = Annotated[Actor, requires(Permission.PRICES_READ)]
PriceAdmin = Annotated[Actor, requires(Permission.PRICES_MANAGE)]
BillingReader = Annotated[Actor, requires(Permission.BILLING_READ, whole_organisation=True)]
BillingAdmin = Annotated[Actor, requires(Permission.BILLING_MANAGE, whole_organisation=True)]
Until = Annotated[UtcMoment | None, Query(description="What is due before that time; now, if left out.")]


@router.get("/plans")
async def list_plans(actor: PriceReader, session: Reading) -> PlanVersionList:
    """List plans with their versions: fees, entitlements, usage windows."""
    found = await list_plan_versions(session)
    return PlanVersionList(
        object="list", data=[PlanVersionOut.model_validate(plan_version_fields(each)) for each in found]
    )


@router.post("/plans", status_code=201)
async def publish_one_plan(
    body: PlanIn, actor: PriceAdmin, session: Transaction, clock: RequestClock
) -> PlanVersionOut:
    """Publish a plan's next version; who has an earlier one keeps it."""
    plan, offer = body.plan_and_offer()
    return PlanVersionOut.model_validate(plan_version_fields(await publish_plan(session, actor, plan, offer, clock)))


@router.get("/subscription")
async def read_subscription(actor: BillingReader, session: Reading) -> SubscriptionOut:
    """Show the organisation's subscription."""
    return SubscriptionOut.model_validate(
        subscription_fields(await service.find_subscription(session, actor.organisation_id))
    )


@router.post("/subscription", status_code=201)
async def begin_subscription(
    body: OrderIn, actor: BillingAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> SubscriptionOut:
    """Subscribe the organisation to a plan; its limits and its share count within seconds."""
    state = await service.subscribe(session, actor, body.order(), ids, clock)
    return SubscriptionOut.model_validate(subscription_fields(state))


@router.post("/subscription/changes")
async def change_subscription(
    body: AskIn, actor: BillingAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> SubscriptionOut:
    """Change plan or seats, pause, resume, cancel; at once prorated to the second, or at the period's end."""
    state = await service.ask(session, actor, body.ask(), ids, clock)
    return SubscriptionOut.model_validate(subscription_fields(state))


@router.get("/subscription/charges")
async def list_charges(actor: BillingReader, session: Reading, clock: RequestClock, until: Until = None) -> ChargeList:
    """List what the organisation's subscriptions have made due, and what will be due until a time to come."""
    charges = await service.organisation_charges(session, actor.organisation_id, until or clock.now())
    return ChargeList(object="list", data=[ChargeOut.model_validate(charge_fields(each)) for each in charges])
