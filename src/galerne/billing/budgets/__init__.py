"""Budgets: what somebody should spend, alerts on the way there, and costs shown to cost centres."""

from galerne.billing.budgets.routes import router as budgets_router
from galerne.billing.budgets.schemas import alert_fields, budget_fields, budget_use_fields, cost_share_fields
from galerne.billing.budgets.service import (
    give_alerts,
    list_alerts,
    list_budgets,
    organisations_with_budgets,
    remove_budget,
    set_budget,
    set_cost_centre,
    showback,
)
from galerne.billing.budgets.thresholds import THRESHOLDS, Alert, Budget, BudgetScope, BudgetWindow, NewBudget

__all__ = [
    "THRESHOLDS",
    "Alert",
    "Budget",
    "BudgetScope",
    "BudgetWindow",
    "NewBudget",
    "alert_fields",
    "budget_fields",
    "budget_use_fields",
    "budgets_router",
    "cost_share_fields",
    "give_alerts",
    "list_alerts",
    "list_budgets",
    "organisations_with_budgets",
    "remove_budget",
    "set_budget",
    "set_cost_centre",
    "showback",
]
