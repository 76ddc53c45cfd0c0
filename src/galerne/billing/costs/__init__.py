"""What use cost, for those who look at it: by day, model, key, workspace, cost centre; as pages and as files."""

from galerne.billing.costs.files import CostFormat, write_costs
from galerne.billing.costs.query import Cost, CostGroup, CostQuery, cost_groups
from galerne.billing.costs.routes import router as costs_router
from galerne.billing.costs.schemas import cost_fields
from galerne.billing.costs.service import costs_page, stream_costs

__all__ = [
    "Cost",
    "CostFormat",
    "CostGroup",
    "CostQuery",
    "cost_fields",
    "cost_groups",
    "costs_page",
    "costs_router",
    "stream_costs",
    "write_costs",
]
