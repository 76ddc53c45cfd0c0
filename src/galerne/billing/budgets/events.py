"""What budgets tell others: that one reached a threshold, as news for the outbox. Pure."""

from hashlib import sha256

from galerne.billing.budgets.thresholds import Alert, Budget
from galerne.kernel.outbox import News
from galerne.ledger import amount_text

REACHED = "budget.reached"


def alert_news(alert: Alert, budget: Budget) -> News:
    """The news of an alert; its id follows from which alert it is, so that it is the same whoever tells it."""
    name = f"{alert.budget_id}:{alert.period_start.isoformat()}:{alert.percent}"
    body = {
        "budget_id": alert.budget_id,
        "organization_id": alert.organisation_id,
        "scope": budget.scope,
        "scope_id": budget.scope_id,
        "window": budget.window,
        "period_start": alert.period_start.isoformat(),
        "percent": alert.percent,
        "spent": amount_text(alert.spent_nano),
        "amount": amount_text(alert.budget_nano),
        "currency": budget.currency,
        "hard": budget.hard,
    }
    return News(
        id=sha256(name.encode()).hexdigest()[:32],
        topic=REACHED,
        whose=alert.organisation_id,
        body=body,
        at=alert.at,
    )
