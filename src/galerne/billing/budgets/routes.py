"""HTTP for budgets, alerts and cost centres: administrators set them, whoever reads usage sees the costs."""

from typing import Annotated

from fastapi import APIRouter

from galerne.billing.budgets import service
from galerne.billing.budgets.schemas import (
    AlertList,
    AlertOut,
    BudgetIn,
    BudgetList,
    BudgetOut,
    BudgetUseOut,
    CostCentreIn,
    CostShareList,
    CostShareOut,
    alert_fields,
    budget_fields,
    budget_use_fields,
    cost_share_fields,
)
from galerne.billing.charges import Period
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel.web import Reading, RequestClock, RequestIds, Text, Transaction, UtcMoment

router = APIRouter(prefix="/v1/admin", tags=["Budgets"])

BillingReader = Annotated[Actor, requires(Permission.BILLING_READ, whole_organisation=True)]
LimitAdmin = Annotated[Actor, requires(Permission.LIMITS_MANAGE)]


@router.get("/budgets")
async def list_all_budgets(actor: BillingReader, session: Reading, clock: RequestClock) -> BudgetList:
    """List the organisation's budgets with what has been spent."""
    found = await service.list_budgets(session, actor.organisation_id, clock.now())
    return BudgetList(object="list", data=[BudgetUseOut.model_validate(budget_use_fields(each)) for each in found])


@router.post("/budgets", status_code=201)
async def set_one_budget(
    body: BudgetIn, actor: LimitAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> BudgetOut:
    """Set a budget, or change the one for the same subject, window and currency."""
    budget = await service.set_budget(session, actor, body.budget(), ids, clock)
    return BudgetOut.model_validate(budget_fields(budget))


@router.delete("/budgets/{budget_id}")
async def remove_one_budget(budget_id: Text, actor: LimitAdmin, session: Transaction, clock: RequestClock) -> BudgetOut:
    """Remove a budget, and the limit that made it hard."""
    return BudgetOut.model_validate(budget_fields(await service.remove_budget(session, actor, budget_id, clock)))


@router.get("/budget-alerts")
async def list_budget_alerts(actor: BillingReader, session: Reading) -> AlertList:
    """List the alerts that were given, newest first."""
    found = await service.list_alerts(session, actor.organisation_id)
    return AlertList(object="list", data=[AlertOut.model_validate(alert_fields(each)) for each in found])


@router.put("/cost-centres", status_code=204)
async def label_cost_centre(body: CostCentreIn, actor: LimitAdmin, session: Transaction, clock: RequestClock) -> None:
    """Show the use of a key or a workspace to a cost centre; a key's own goes before its workspace's."""
    await service.set_cost_centre(session, actor, (body.scope, body.scope_id), body.cost_centre, clock)


@router.get("/showback")
async def read_showback(
    actor: BillingReader, session: Reading, start: UtcMoment, end: UtcMoment, currency: Text = "EUR"
) -> CostShareList:
    """Show what use was worth by cost centre."""
    found = await service.showback(session, actor.organisation_id, currency, Period(start, end))
    return CostShareList(object="list", data=[CostShareOut.model_validate(cost_share_fields(each)) for each in found])
