"""Wire types of budgets: amounts are decimals in strings, times ISO 8601 in UTC."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from galerne.billing.budgets.service import BudgetUse, CostShare
from galerne.billing.budgets.thresholds import Alert, Budget, BudgetScope, BudgetWindow, NewBudget
from galerne.billing.prices.decimals import nano_of
from galerne.kernel.web import Text
from galerne.ledger import amount_text


class BudgetIn(BaseModel):
    """A budget to set; `hard`: requests beyond it are refused."""

    model_config = ConfigDict(extra="forbid")

    scope: BudgetScope
    scope_id: Text
    window: BudgetWindow = "month"
    amount: Text
    currency: Text
    hard: bool = False

    def budget(self) -> NewBudget:
        """The same, as billing takes it; `BadRequest` for what is no amount."""
        fields = self.model_dump(exclude={"amount"})
        return NewBudget(nano=nano_of(self.amount, param="amount"), **fields)


class CostCentreIn(BaseModel):
    """Whom the use of a key or a workspace is shown to; null for nobody."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["key", "workspace"]
    scope_id: Text
    cost_centre: Text | None


class BudgetOut(BaseModel):
    """A budget."""

    object: Literal["budget"]
    id: str
    scope: BudgetScope
    scope_id: str
    window: BudgetWindow
    amount: str
    currency: str
    hard: bool


class BudgetUseOut(BudgetOut):
    """A budget and what has been spent of it in the period that runs."""

    spent: str
    period_start: datetime
    period_end: datetime


class BudgetList(BaseModel):
    """Budgets, oldest first."""

    object: Literal["list"]
    data: list[BudgetUseOut]


class AlertOut(BaseModel):
    """That a budget reached a threshold; each once a period."""

    object: Literal["budget_alert"]
    budget_id: str
    percent: int
    period_start: datetime
    spent: str
    amount: str
    at: datetime


class AlertList(BaseModel):
    """Alerts, newest first."""

    object: Literal["list"]
    data: list[AlertOut]


class CostShareOut(BaseModel):
    """What a cost centre's keys used and were worth; `cost_centre` null gathers those without one."""

    object: Literal["cost_share"]
    cost_centre: str | None
    quantity: int
    cost: str


class CostShareList(BaseModel):
    """Cost centres, the dearest first."""

    object: Literal["list"]
    data: list[CostShareOut]


def budget_fields(budget: Budget) -> dict[str, object]:
    """The fields of `BudgetOut`."""
    same = ("id", "scope", "scope_id", "window", "currency", "hard")
    fields = {name: getattr(budget, name) for name in same}
    return {"object": "budget", **fields, "amount": amount_text(budget.nano)}


def budget_use_fields(use: BudgetUse) -> dict[str, object]:
    """The fields of `BudgetUseOut`."""
    period = {"period_start": use.period.start, "period_end": use.period.end}
    return {**budget_fields(use.budget), "spent": amount_text(use.spent_nano), **period}


def alert_fields(alert: Alert) -> dict[str, object]:
    """The fields of `AlertOut`."""
    same = {name: getattr(alert, name) for name in ("budget_id", "percent", "period_start", "at")}
    amounts = {"spent": amount_text(alert.spent_nano), "amount": amount_text(alert.budget_nano)}
    return {"object": "budget_alert", **same, **amounts}


def cost_share_fields(share: CostShare) -> dict[str, object]:
    """The fields of `CostShareOut`."""
    amounts = {"quantity": share.quantity, "cost": amount_text(share.nano)}
    return {"object": "cost_share", "cost_centre": share.cost_centre, **amounts}
