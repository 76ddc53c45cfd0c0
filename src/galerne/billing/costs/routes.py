"""HTTP for costs: whoever may read usage sees what it cost, its own organisation's or its own workspace's."""

from typing import Annotated

from fastapi import APIRouter, Query

from galerne.billing.costs.schemas import CostPage, CostsIn, cost_out
from galerne.billing.costs.service import costs_page
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import Forbidden
from galerne.kernel.web import Reading

router = APIRouter(prefix="/v1/usage", tags=["Usage"])

UsageReader = Annotated[Actor, requires(Permission.USAGE_READ)]


@router.get("/costs")
async def read_costs(asked: Annotated[CostsIn, Query()], actor: UsageReader, session: Reading) -> CostPage:
    """What rated use cost, summed by day, model, key, workspace, cost centre and more."""
    query = asked.query(actor.organisation_id, _workspaces(actor, asked.workspace_id))
    found, next_page = await costs_page(session, query, asked.limit, asked.page)
    rows = [cost_out(query, each) for each in found]
    return CostPage(object="page", data=rows, has_more=next_page is not None, next_page=next_page)


def _workspaces(actor: Actor, asked: list[str]) -> list[str]:
    if actor.workspace_id is None:
        return asked
    if any(each != actor.workspace_id for each in asked):
        raise Forbidden("This key belongs to one workspace and sees the costs of that workspace only.")
    return [actor.workspace_id]
