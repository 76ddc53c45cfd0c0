"""What subscriptions tell others: that an invoice could not be collected, as news for the outbox. Pure."""

from hashlib import sha256

from galerne.billing.subscriptions.lifecycle import Subscription
from galerne.kernel.outbox import News

FAILED = "payment.failed"


def failed_news(state: Subscription, invoice_id: str) -> News:
    """The news of the attempt after which a subscription is so; its id follows from the event that it was.

    `retry_at` is when whoever collects is to try again, null when not any more; `gives_up_at` is when patience ends.
    """
    unpaid = next(each for each in state.unpaid if each.invoice_id == invoice_id)
    retry_at, gives_up_at = state.retry_at(invoice_id), state.gives_up_at
    body = {
        "organization_id": state.organisation_id,
        "subscription_id": state.id,
        "invoice_id": invoice_id,
        "attempts": unpaid.attempts,
        "since": unpaid.since.isoformat(),
        "retry_at": None if retry_at is None else retry_at.isoformat(),
        "gives_up_at": None if gives_up_at is None else gives_up_at.isoformat(),
        "when_unpaid": state.when_unpaid,
    }
    name = f"{state.id}:{state.seq}:{invoice_id}"
    return News(
        id=sha256(name.encode()).hexdigest()[:32], topic=FAILED, whose=state.organisation_id, body=body, at=state.at
    )
