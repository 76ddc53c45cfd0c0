"""Wire types of plans and subscriptions: fees are decimals in strings, times ISO 8601 in UTC."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.billing_calendar import Interval
from galerne.billing.charges import Charge, ChargeKind
from galerne.billing.plans import Plan, Tier
from galerne.billing.prices.decimals import decimal_of, nano_of
from galerne.billing.subscriptions.commands import When
from galerne.billing.subscriptions.lifecycle import Status, Subscription, WhenUnpaid
from galerne.billing.subscriptions.offers import Fee, Item, Offer, PlanVersion, UsageWindow
from galerne.billing.subscriptions.wishes import Ask, Order, What
from galerne.kernel.web import Text
from galerne.ledger import amount_text
from galerne.metering import Quantity, Window


class FeeBody(BaseModel):
    """What one interval costs, a decimal in a string; for each seat where the plan is sold by the seat."""

    model_config = ConfigDict(extra="forbid")

    interval: Interval
    currency: Text
    amount: Text


class WindowBody(BaseModel):
    """How much may be used in a window."""

    model_config = ConfigDict(extra="forbid")

    quantity: Quantity
    window: Window
    amount: int = Field(ge=1)
    currency: Text | None = None
    per_seat: bool = False


class PlanIn(BaseModel):
    """A plan's next version."""

    model_config = ConfigDict(extra="forbid")

    plan: Text
    weight: int = Field(ge=1, le=1000)
    tier: Tier
    description: Text
    fees: list[FeeBody] = []
    per_seat: bool = False
    tax_inclusive: bool = False
    trial_days: int = 0
    self_serve: bool = True
    entitlements: dict[Text, bool | int | Text] = {}
    windows: list[WindowBody] = []

    def plan_and_offer(self) -> tuple[Plan, Offer]:
        """The same, as billing takes it; `BadRequest` for a fee that is no amount."""
        fees = [
            Fee(interval=fee.interval, currency=fee.currency, nano=nano_of(fee.amount, param="fees"))
            for fee in self.fees
        ]
        offer = Offer(
            fees=tuple(fees),
            per_seat=self.per_seat,
            tax_inclusive=self.tax_inclusive,
            trial_days=self.trial_days,
            self_serve=self.self_serve,
            entitlements=self.entitlements,
            windows=tuple(UsageWindow(**window.model_dump()) for window in self.windows),
        )
        return Plan(id=self.plan, weight=self.weight, tier=self.tier, description=self.description), offer


class PlanVersionOut(BaseModel):
    """A plan's version."""

    object: Literal["plan_version"]
    plan: str
    version: int
    fees: list[FeeBody]
    per_seat: bool
    tax_inclusive: bool
    trial_days: int
    self_serve: bool
    entitlements: dict[str, bool | int | str]
    windows: list[WindowBody]


class PlanVersionList(BaseModel):
    """Plans' versions, by plan."""

    object: Literal["list"]
    data: list[PlanVersionOut]


class OrderIn(BaseModel):
    """A subscription to begin, with the plan's newest version."""

    model_config = ConfigDict(extra="forbid")

    plan: Text
    interval: Interval = "month"
    currency: Text = "EUR"
    seats: int = 1
    time_zone: Text = "UTC"
    trial: bool = True
    when_unpaid: WhenUnpaid = "downgrade"
    request_id: Text | None = Field(None, max_length=100, description="Your own name for this wish; it happens once.")

    def order(self) -> Order:
        """The same, as billing takes it."""
        fields = self.model_dump()
        return Order(plan_id=fields.pop("plan"), **fields)


class AskIn(BaseModel):
    """Something to ask of the subscription. `when` counts for `change`, `seats` and `cancel`, `credit` for the last."""

    model_config = ConfigDict(extra="forbid")

    what: What
    plan: Text | None = None
    interval: Interval | None = None
    seats: int | None = None
    when: When = "now"
    credit: bool = True
    request_id: Text | None = Field(None, max_length=100, description="Your own name for this wish; it happens once.")

    def ask(self) -> Ask:
        """The same, as billing takes it."""
        fields = self.model_dump()
        return Ask(plan_id=fields.pop("plan"), **fields)


class ItemOut(BaseModel):
    """What is had of a plan: `fee` for one interval and seat."""

    plan: str
    version: int
    interval: Interval
    currency: str
    fee: str
    per_seat: bool
    seats: int


class UnpaidOut(BaseModel):
    """An invoice that could not be collected; `retry_at` is when it is to be tried again, null when not any more."""

    invoice_id: str
    since: datetime
    attempts: int
    retry_at: datetime | None


class SubscriptionOut(BaseModel):
    """A subscription; `pending` is what begins with the next period."""

    object: Literal["subscription"]
    id: str
    organization_id: str
    status: Status
    item: ItemOut
    pending: ItemOut | None
    time_zone: str
    period_start: datetime
    period_end: datetime
    trialing: bool
    cancel_at_period_end: bool
    unpaid_invoices: list[str]
    unpaid: list[UnpaidOut]
    gives_up_at: datetime | None
    ended_at: datetime | None


class ChargeOut(BaseModel):
    """A charge: quantity x unit price x seconds / of_seconds, rounded; negative amounts are credits."""

    object: Literal["charge"]
    id: str
    kind: ChargeKind
    description: str
    currency: str
    period_start: datetime
    period_end: datetime
    quantity: int
    unit_price: str
    seconds: int
    of_seconds: int
    amount: str
    amount_nano: int
    due_at: datetime


class ChargeList(BaseModel):
    """Charges, in the order in which they became due."""

    object: Literal["list"]
    data: list[ChargeOut]


def plan_version_fields(version: PlanVersion) -> dict[str, object]:
    """The fields of `PlanVersionOut`."""
    offer = version.offer
    fees = [{"interval": fee.interval, "currency": fee.currency, "amount": amount_text(fee.nano)} for fee in offer.fees]
    windows = [{name: getattr(each, name) for name in WindowBody.model_fields} for each in offer.windows]
    same = ("per_seat", "tax_inclusive", "trial_days", "self_serve")
    return {
        "object": "plan_version",
        "plan": version.plan_id,
        "version": version.version,
        "fees": fees,
        **{name: getattr(offer, name) for name in same},
        "entitlements": dict(offer.entitlements),
        "windows": windows,
    }


def subscription_fields(state: Subscription) -> dict[str, object]:
    """The fields of `SubscriptionOut`."""
    return {
        "object": "subscription",
        "id": state.id,
        "organization_id": state.organisation_id,
        "status": state.status,
        "item": _item(state.item),
        "pending": None if state.pending is None else _item(state.pending),
        "time_zone": state.time_zone,
        "period_start": state.period.start,
        "period_end": state.period.end,
        "trialing": state.trialing,
        "cancel_at_period_end": state.canceling,
        "unpaid_invoices": [each.invoice_id for each in state.unpaid],
        "unpaid": [
            {
                "invoice_id": each.invoice_id,
                "since": each.since,
                "attempts": each.attempts,
                "retry_at": state.retry_at(each.invoice_id),
            }
            for each in state.unpaid
        ],
        "gives_up_at": state.gives_up_at,
        "ended_at": state.ended_at,
    }


def charge_fields(charge: Charge) -> dict[str, object]:
    """The fields of `ChargeOut`."""
    same = ("id", "kind", "description", "currency", "quantity", "seconds", "of_seconds", "amount_nano", "due_at")
    return {
        "object": "charge",
        **{name: getattr(charge, name) for name in same},
        "period_start": charge.period.start,
        "period_end": charge.period.end,
        "unit_price": decimal_of(charge.unit_price_nano),
        "amount": amount_text(charge.amount_nano),
    }


def _item(item: Item) -> dict[str, object]:
    same = ("version", "interval", "currency", "per_seat", "seats")
    fields = {name: getattr(item, name) for name in same}
    return {"plan": item.plan_id, "fee": amount_text(item.fee_nano), **fields}
