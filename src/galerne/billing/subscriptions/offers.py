"""What a plan offers, by version: fees, entitlements, and how much may be used in which window. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from galerne.billing.billing_calendar import Interval
from galerne.kernel import BadRequest
from galerne.metering import NewLimit, Quantity, Window, check_rule

MOST_SEATS = 100_000
MOST_FEE_NANO = 10**15
"""A million of a currency: above it a fee is a slip, and a fee times seats must stay within 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fee:
    """What one interval costs, for each seat where the plan is sold by the seat; nano-units of `currency`."""

    interval: Interval
    currency: str
    nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageWindow:
    """How much of a quantity the plan's subscriber may use in a window, for each seat if it says so."""

    quantity: Quantity
    window: Window
    amount: int
    currency: str | None = None
    per_seat: bool = False

    def limit(self, organisation_id: str, seats: int) -> NewLimit:
        """The limit that this means for one subscriber."""
        amount = self.amount * (seats if self.per_seat else 1)
        return NewLimit(
            scope="organisation",
            scope_id=organisation_id,
            quantity=self.quantity,
            window=self.window,
            amount=amount,
            currency=self.currency,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a version of a plan contains. One without fees for an interval cannot be had at that interval.

    `tax_inclusive`: the fees contain the tax. `self_serve`: whoever manages an organisation's billing may take it,
    otherwise the operator alone gives it. `entitlements` are names that other parts of the house ask for.
    """

    fees: tuple[Fee, ...] = ()
    per_seat: bool = False
    tax_inclusive: bool = False
    trial_days: int = 0
    self_serve: bool = True
    entitlements: Mapping[str, bool | int | str] = field(default_factory=dict[str, bool | int | str])
    windows: tuple[UsageWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanVersion:
    """A plan's version: frozen; subscribers keep theirs until they change."""

    plan_id: str
    version: int
    offer: Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a subscriber has of a plan's version: the fee for one interval and seat, and how many seats."""

    plan_id: str
    version: int
    interval: Interval
    currency: str
    fee_nano: int
    per_seat: bool
    tax_inclusive: bool
    seats: int = 1

    @property
    def price_nano(self) -> int:
        """What one whole interval costs."""
        return self.fee_nano * self.seats


def item_of(plan: PlanVersion, interval: Interval, currency: str, seats: int) -> Item:
    """What a subscriber gets; `BadRequest` where the plan has no such fee, or is not sold by the seat."""
    fee = next((fee for fee in plan.offer.fees if (fee.interval, fee.currency) == (interval, currency)), None)
    if fee is None:
        raise BadRequest(
            f"The plan '{plan.plan_id}' has no fee by the {interval} in {currency[:20]}.", param="currency"
        )
    check_seats(plan.plan_id, plan.offer.per_seat, seats)
    return Item(
        plan_id=plan.plan_id,
        version=plan.version,
        interval=interval,
        currency=currency,
        fee_nano=fee.nano,
        per_seat=plan.offer.per_seat,
        tax_inclusive=plan.offer.tax_inclusive,
        seats=seats,
    )


def check_seats(plan_id: str, per_seat: bool, seats: int) -> None:
    """Raise `BadRequest` unless a subscriber of such a plan can have that many seats."""
    if not per_seat and seats != 1:
        raise BadRequest(f"The plan '{plan_id}' is for one person; it is not sold by the seat.", param="seats")
    if not 1 <= seats <= MOST_SEATS:
        raise BadRequest(f"There can be 1 to {MOST_SEATS} seats.", param="seats")


def check_offer(offer: Offer) -> None:
    """Raise `BadRequest` naming the field if there can be no such offer."""
    for fee in offer.fees:
        if not 0 <= fee.nano <= MOST_FEE_NANO:
            raise BadRequest("A fee is not negative and at most 1000000.", param="fees")
        if not (len(fee.currency) == 3 and fee.currency.isascii() and fee.currency.isupper()):
            raise BadRequest("A currency is its ISO 4217 code, such as EUR.", param="fees")
    if len({(fee.interval, fee.currency) for fee in offer.fees}) < len(offer.fees):
        raise BadRequest("There is one fee for an interval and a currency.", param="fees")
    if not 0 <= offer.trial_days <= 365:
        raise BadRequest("A trial has 0 to 365 days.", param="trial_days")
    if len({(each.quantity, each.window, each.currency) for each in offer.windows}) < len(offer.windows):
        raise BadRequest("There is one amount for a quantity and a window.", param="windows")
    for window in offer.windows:
        check_rule(window.limit("organisation", MOST_SEATS))
