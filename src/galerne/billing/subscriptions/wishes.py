"""What a subscriber can ask for, as a value, and as the decision that it leads to. It reads plans, writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.billing_calendar import Interval
from galerne.billing.subscriptions import commands
from galerne.billing.subscriptions.catalogue import plan_version
from galerne.billing.subscriptions.commands import When
from galerne.billing.subscriptions.lifecycle import Event, Subscription, WhenUnpaid
from galerne.billing.subscriptions.offers import PlanVersion, item_of
from galerne.governance import Actor, Permission
from galerne.kernel import BadRequest, Forbidden

What = Literal["change", "seats", "pause", "resume", "cancel", "uncancel", "withdraw_change"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a subscriber wants: the plan's newest version. `request_id` is the subscriber's own name for the wish."""

    plan_id: str
    interval: Interval = "month"
    currency: str = "EUR"
    seats: int = 1
    time_zone: str = "UTC"
    trial: bool = True
    when_unpaid: WhenUnpaid = "downgrade"
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Something asked of a subscription. `request_id` is the asker's own name for it: under it, it happens once."""

    what: What
    plan_id: str | None = None
    interval: Interval | None = None
    seats: int | None = None
    when: When = "now"
    credit: bool = True
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A decision to come: `asked` says what was asked, for comparison, `decide` what then happens."""

    asked: dict[str, Any]
    decide: Callable[[Subscription, datetime], list[Event]]
    request_id: str | None = None


async def wish_of(session: AsyncSession, actor: Actor, ask: Ask) -> Wish:
    """The decision that was asked for; `BadRequest` where something is missing, errors of `plan_version`."""
    decide = await _decision(session, actor, ask)
    return Wish(msgspec.to_builtins(ask), decide, ask.request_id)


def check_offered(actor: Actor, plan: PlanVersion) -> None:
    """Raise `Forbidden` for a plan that `actor` cannot take by itself."""
    if not plan.offer.self_serve and Permission.PRICES_MANAGE not in actor.permissions:
        raise Forbidden(f"The plan '{plan.plan_id}' comes with a contract; ask the operator.", param="plan")


async def _decision(session: AsyncSession, actor: Actor, ask: Ask) -> Callable[[Subscription, datetime], list[Event]]:
    if ask.what == "change":
        return await _change(session, actor, ask)
    if ask.what == "seats":
        if ask.seats is None:
            raise BadRequest("Say how many seats.", param="seats")
        seats = ask.seats
        return lambda state, now: commands.set_seats(state, seats, ask.when, now)
    if ask.what == "cancel":
        return lambda state, now: commands.cancel(state, ask.when, ask.credit, now)
    return {
        "pause": commands.pause,
        "resume": commands.resume,
        "uncancel": commands.withdraw_cancel,
        "withdraw_change": commands.withdraw_change,
    }[ask.what]


async def _change(session: AsyncSession, actor: Actor, ask: Ask) -> Callable[[Subscription, datetime], list[Event]]:
    if ask.plan_id is None:
        raise BadRequest("Say which plan.", param="plan")
    plan = await plan_version(session, ask.plan_id)
    check_offered(actor, plan)

    def decide(state: Subscription, now: datetime) -> list[Event]:
        kept = state.item.seats if plan.offer.per_seat else 1
        item = item_of(plan, ask.interval or state.item.interval, state.item.currency, ask.seats or kept)
        return commands.change(state, item, ask.when, now)

    return decide
