"""Budgets as values, the period that counts, and which thresholds have been reached. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from galerne.billing.charges import Period
from galerne.billing.spending import Spent
from galerne.kernel import BadRequest

BudgetScope = Literal["key", "workspace", "organisation", "cost_centre"]
BudgetWindow = Literal["day", "week", "month"]

THRESHOLDS = (50, 80, 100)
"""Per cent of a budget at which an alert is due, each once a period."""

MOST_NANO = 10**18
"""A thousand million of a currency, the largest limit that metering can enforce."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBudget:
    """How much whoever `scope` and `scope_id` name should spend in a window; `hard`: more than that is refused."""

    scope: BudgetScope
    scope_id: str
    window: BudgetWindow
    nano: int
    currency: str
    hard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(NewBudget):
    """A budget that was set; `rule_id` is the limit that makes it hard."""

    id: str
    organisation_id: str
    rule_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """That a budget reached a threshold in the period that began then: what was spent when it was seen."""

    budget_id: str
    organisation_id: str
    period_start: datetime
    percent: int
    spent_nano: int
    budget_nano: int
    at: datetime


def check_budget(new: NewBudget) -> None:
    """Raise `BadRequest` naming the field if there can be no such budget."""
    if not 1 <= new.nano <= MOST_NANO:
        raise BadRequest("A budget is more than nothing, and at most a thousand million.", param="amount")
    if not (len(new.currency) == 3 and new.currency.isascii() and new.currency.isalpha() and new.currency.isupper()):
        raise BadRequest("A currency is its ISO 4217 code, such as EUR.", param="currency")
    if new.hard and new.scope == "cost_centre":
        raise BadRequest("A cost centre's budget cannot be hard; set them on its workspaces or keys.", param="hard")


def budget_period(window: BudgetWindow, at: datetime) -> Period:
    """The window that `at` lies in, by UTC's calendar, as limits count: a day, an ISO week, a month."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        return Period(day, day + timedelta(days=1))
    if window == "week":
        monday = day - timedelta(days=day.weekday())
        return Period(monday, monday + timedelta(days=7))
    first = day.replace(day=1)
    return Period(first, (first + timedelta(days=31)).replace(day=1))


def reached(spent_nano: int, budget_nano: int) -> list[int]:
    """The thresholds, in per cent, that so much of a budget has reached."""
    return [percent for percent in THRESHOLDS if spent_nano * 100 >= budget_nano * percent]


def spent_of(budget: NewBudget, spent: Iterable[Spent], centres: Mapping[tuple[str, str], str]) -> int:
    """How much of what was spent counts for the budget, in nano-units."""
    return sum(each.nano for each in spent if _counts(budget, each, centres))


def centre_of(spent: Spent, centres: Mapping[tuple[str, str], str]) -> str | None:
    """The cost centre of what a key spent: the key's own, or its workspace's. `centres` is by kind and id."""
    of_workspace = None if spent.workspace_id is None else centres.get(("workspace", spent.workspace_id))
    return centres.get(("key", spent.key_id), of_workspace)


def _counts(budget: NewBudget, spent: Spent, centres: Mapping[tuple[str, str], str]) -> bool:
    if budget.scope == "organisation":
        return True
    if budget.scope == "cost_centre":
        return centre_of(spent, centres) == budget.scope_id
    return (spent.key_id if budget.scope == "key" else spent.workspace_id) == budget.scope_id
