"""Use cases of subscriptions: beginning one, asking something of it, and letting time pass. None of them commits.

Each locks the subscription's row first, so that of two who ask at once the second sees what the first made of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.charges import Charge
from galerne.billing.subscriptions import commands, entitled
from galerne.billing.subscriptions.catalogue import plan_version
from galerne.billing.subscriptions.events import failed_news
from galerne.billing.subscriptions.lifecycle import (
    Event,
    Subscription,
    after,
    begun,
    due_events,
    folded,
    next_due,
)
from galerne.billing.subscriptions.offers import item_of
from galerne.billing.subscriptions.proration import charges_of
from galerne.billing.subscriptions.tables import SubscriptionEventRow, SubscriptionRow
from galerne.billing.subscriptions.wishes import Ask, Order, Wish, check_offered, wish_of
from galerne.governance import SYSTEM, Actor, Permission, require
from galerne.journal import Entry, append
from galerne.kernel import Clock, Conflict, Forbidden, Ids, NotFound
from galerne.kernel.outbox import publish

_MOST_AT_ONCE = 200


async def subscribe(session: AsyncSession, actor: Actor, order: Order, ids: Ids, clock: Clock) -> Subscription:
    """A new subscription of `actor`'s organisation. Its plan and limits count at once.

    `Conflict` (`subscription_exists`) while there is another, or when the same `request_id` asked for something else;
    `Forbidden` for a plan that only the operator gives.
    """
    _check_actor(actor)
    asked = msgspec.to_builtins(order)
    earlier = await _earlier(session, actor.organisation_id, order.request_id, asked)
    if earlier is not None:
        return await _state(session, await _row(session, earlier))
    plan = await plan_version(session, order.plan_id)
    check_offered(actor, plan)
    await _advance_open(session, actor.organisation_id, ids, clock)
    if await _open_row(session, actor.organisation_id) is not None:
        raise Conflict("This organisation has a subscription; change it.", code="subscription_exists")
    item = item_of(plan, order.interval, order.currency, order.seats)
    trial_days = plan.offer.trial_days if order.trial and not await _had_one(session, actor.organisation_id) else 0
    event = commands.started(item, order.time_zone, trial_days, order.when_unpaid, clock.now())
    state = begun(ids.new(), actor.organisation_id, event)
    row = SubscriptionRow(
        id=state.id, organisation_id=state.organisation_id, seq=1, rule_ids=[], created_at=event.at, **_found_by(state)
    )
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise Conflict("This organisation has a subscription; change it.", code="subscription_exists") from None
    wish = Wish(asked, lambda _state, _now: [], order.request_id)
    await _record(session, row, state, [(event, actor, wish)], (ids, clock))
    return state


async def ask(session: AsyncSession, actor: Actor, asked: Ask, ids: Ids, clock: Clock) -> Subscription:
    """The subscription of `actor`'s organisation after the wish; `NotFound` without one, `Conflict` where it cannot be.

    Asked again with the same `request_id` nothing happens; with another wish under it, `Conflict`.
    """
    _check_actor(actor)
    wish = await wish_of(session, actor, asked)
    earlier = await _earlier(session, actor.organisation_id, wish.request_id, wish.asked)
    if earlier is not None:
        return await _state(session, await _row(session, earlier))
    row = await _open_row(session, actor.organisation_id) or await _last_row(session, actor.organisation_id)
    return await _happen(session, row, (actor, wish), ids, clock)


async def payment_failed(
    session: AsyncSession, subscription_id: str, invoice_id: str, attempt_id: str, ids: Ids, clock: Clock
) -> Subscription:
    """Tell a subscription that an attempt to collect one of its invoices failed; each `attempt_id` counts once.

    It is past due until the invoice is paid; when patience ends it is suspended or ends, as was agreed. Its
    organisation is told (`payment.failed`) when to try again: nothing here charges by itself.
    """
    wish = Wish(
        {"ask": "payment_failed", "invoice_id": invoice_id},
        lambda state, now: commands.payment_failed(state, invoice_id, now),
        f"payment:{attempt_id}",
    )
    return await _by_system(session, subscription_id, wish, ids, clock)


async def payment_received(
    session: AsyncSession, subscription_id: str, invoice_id: str, ids: Ids, clock: Clock
) -> Subscription:
    """Tell a subscription that one of its invoices was paid; service comes back with the last that was not."""
    wish = Wish(
        {"ask": "payment_received", "invoice_id": invoice_id},
        lambda state, now: commands.payment_received(state, invoice_id, now),
    )
    return await _by_system(session, subscription_id, wish, ids, clock)


async def advance_due(session: AsyncSession, ids: Ids, clock: Clock, limit: int = _MOST_AT_ONCE) -> int:
    """Let what is due by itself happen to at most `limit` subscriptions; how many there were.

    Safe to run in several processes and as often as one likes: what happens has the time at which it was due.
    """
    query = select(SubscriptionRow).where(SubscriptionRow.next_due_at <= clock.now())
    query = query.order_by(SubscriptionRow.next_due_at, SubscriptionRow.id).limit(limit)
    rows = list(await session.scalars(query.with_for_update(skip_locked=True)))
    for row in sorted(rows, key=lambda row: row.id):
        await _happen(session, row, None, ids, clock)
    return len(rows)


async def due_subscriptions(session: AsyncSession, clock: Clock) -> list[str]:
    """The ids of the subscriptions to which something is to happen by itself by now, for `advance_subscription`."""
    query = select(SubscriptionRow.id).where(SubscriptionRow.next_due_at <= clock.now())
    return list(await session.scalars(query.order_by(SubscriptionRow.id)))


async def advance_subscription(session: AsyncSession, subscription_id: str, ids: Ids, clock: Clock) -> Subscription:
    """Let what is due by itself happen to one subscription; as it stands then. Safe at any time, as `advance_due`."""
    return await _happen(session, await _row(session, subscription_id), None, ids, clock)


async def find_subscription(session: AsyncSession, organisation_id: str) -> Subscription:
    """The organisation's subscription as it was recorded last, the one that ended last if none is open."""
    row = await _open_row(session, organisation_id, lock=False)
    return await _state(session, row or await _last_row(session, organisation_id))


async def list_subscriptions(session: AsyncSession, limit: int = 1000) -> list[Subscription]:
    """Every organisation's subscriptions, newest first: for the operator alone."""
    query = select(SubscriptionRow).order_by(SubscriptionRow.created_at.desc(), SubscriptionRow.id.desc()).limit(limit)
    return [await _state(session, row) for row in await session.scalars(query)]


async def subscription_charges(session: AsyncSession, subscription_id: str, until: datetime) -> list[Charge]:
    """Every charge that becomes due before `until`, also by what has not been recorded but is certain by then."""
    row = await _row(session, subscription_id, lock=False)
    events = await _events(session, row.id)
    coming, _ = due_events(folded(row.id, row.organisation_id, events), until)
    charges = charges_of(row.id, row.organisation_id, [*events, *coming])
    return [charge for charge in charges if charge.due_at < until]


async def organisation_charges(session: AsyncSession, organisation_id: str, until: datetime) -> list[Charge]:
    """Those of all of an organisation's subscriptions, ended ones included, as `subscription_charges`."""
    query = select(SubscriptionRow.id).where(SubscriptionRow.organisation_id == organisation_id)
    found = await session.scalars(query.order_by(SubscriptionRow.created_at, SubscriptionRow.id))
    return [charge for each in list(found) for charge in await subscription_charges(session, each, until)]


async def _happen(
    session: AsyncSession, row: SubscriptionRow, asked: tuple[Actor, Wish] | None, ids: Ids, clock: Clock
) -> Subscription:
    state = await _state(session, row)
    due, state = due_events(state, clock.now())
    system = replace(SYSTEM, organisation_id=row.organisation_id)
    happened: list[tuple[Event, Actor, Wish | None]] = [(event, system, None) for event in due]
    if asked is not None:
        actor, wish = asked
        for number, event in enumerate(wish.decide(state, clock.now())):
            happened.append((event, actor, wish if number == 0 else None))
            state = after(state, event)
            if event.kind == "payment_failed":
                await publish(session, [failed_news(state, event.invoice_id or "")])
    if happened:
        await _record(session, row, state, happened, (ids, clock))
    return state


async def _record(
    session: AsyncSession,
    row: SubscriptionRow,
    state: Subscription,
    happened: Sequence[tuple[Event, Actor, Wish | None]],
    parts: tuple[Ids, Clock],
) -> None:
    ids, clock = parts
    now, entries = clock.now(), list[Entry]()
    await session.flush()
    for seq, (event, actor, wish) in enumerate(happened, state.seq - len(happened) + 1):
        row.seq = seq
        session.add(
            SubscriptionEventRow(
                id=ids.new(),
                subscription_id=row.id,
                organisation_id=row.organisation_id,
                seq=seq,
                kind=event.kind,
                at=event.at,
                body=msgspec.to_builtins(event),
                request_id=None if wish is None else wish.request_id,
                asked=None if wish is None else wish.asked,
                recorded_at=now,
            )
        )
        entries.append(_entry(actor, row.id, event, now))
    for name, value in _found_by(state).items():
        setattr(row, name, value)
    await session.flush()
    if state.ended_at is None or any(event.kind == "ended" for event, _, _ in happened):
        await entitled.apply(session, row, state, clock)
        await session.flush()
    await append(session, entries)


def _found_by(state: Subscription) -> dict[str, Any]:
    due = next_due(state)
    return {
        "status": state.status,
        "plan_id": state.item.plan_id,
        "next_due_at": None if due is None else due.at,
        "ended_at": state.ended_at,
    }


def _entry(actor: Actor, subscription_id: str, event: Event, at: datetime) -> Entry:
    detail: dict[str, str | int | bool | None] = {"happened_at": event.at.isoformat()}
    if event.item is not None:
        item = event.item
        detail |= {"plan": item.plan_id, "version": item.version, "interval": item.interval, "seats": item.seats}
        detail |= {"fee_nano": str(item.fee_nano), "currency": item.currency}
    if event.invoice_id is not None:
        detail["invoice_id"] = event.invoice_id
    resource = f"subscription:{subscription_id}"
    return Entry(
        action=f"subscription.{event.kind}", actor=actor, resource=resource, outcome="done", at=at, detail=detail
    )


async def _by_system(session: AsyncSession, subscription_id: str, wish: Wish, ids: Ids, clock: Clock) -> Subscription:
    row = await _row(session, subscription_id)
    earlier = await _earlier(session, row.organisation_id, wish.request_id, wish.asked)
    if earlier is not None:
        return await _state(session, row)
    return await _happen(session, row, (replace(SYSTEM, organisation_id=row.organisation_id), wish), ids, clock)


async def _earlier(
    session: AsyncSession, organisation_id: str, request_id: str | None, asked: dict[str, Any]
) -> str | None:
    if request_id is None:
        return None
    row = SubscriptionEventRow
    query = select(row.subscription_id, row.asked).where(
        row.organisation_id == organisation_id, row.request_id == request_id
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        return None
    if found[1] != asked:
        raise Conflict("This request id was used for something else.", code="idempotency_conflict", param="request_id")
    return str(found[0])


def _check_actor(actor: Actor) -> None:
    require(actor, Permission.BILLING_MANAGE)
    if actor.workspace_id is not None:
        raise Forbidden("A workspace's key cannot change the subscription; use a key of the whole organisation.")


async def _advance_open(session: AsyncSession, organisation_id: str, ids: Ids, clock: Clock) -> None:
    row = await _open_row(session, organisation_id)
    if row is not None:
        await _happen(session, row, None, ids, clock)


async def _open_row(session: AsyncSession, organisation_id: str, *, lock: bool = True) -> SubscriptionRow | None:
    query = select(SubscriptionRow).where(
        SubscriptionRow.organisation_id == organisation_id, SubscriptionRow.ended_at.is_(None)
    )
    return await session.scalar(_locked(query) if lock else query)


def _locked(query: Select[SubscriptionRow]) -> Select[SubscriptionRow]:
    return query.with_for_update().execution_options(populate_existing=True)


async def _last_row(session: AsyncSession, organisation_id: str) -> SubscriptionRow:
    query = select(SubscriptionRow).where(SubscriptionRow.organisation_id == organisation_id)
    row = await session.scalar(query.order_by(SubscriptionRow.created_at.desc(), SubscriptionRow.id.desc()).limit(1))
    if row is None:
        raise NotFound("This organisation has no subscription.", code="subscription_not_found")
    return row


async def _row(session: AsyncSession, subscription_id: str, *, lock: bool = True) -> SubscriptionRow:
    query = select(SubscriptionRow).where(SubscriptionRow.id == subscription_id)
    row = await session.scalar(_locked(query) if lock else query)
    if row is None:
        raise NotFound("There is no such subscription.", code="subscription_not_found")
    return row


async def _had_one(session: AsyncSession, organisation_id: str) -> bool:
    query = select(SubscriptionRow.id).where(SubscriptionRow.organisation_id == organisation_id).limit(1)
    return await session.scalar(query) is not None


async def _events(session: AsyncSession, subscription_id: str) -> list[Event]:
    row = SubscriptionEventRow
    query = select(row.body).where(row.subscription_id == subscription_id).order_by(row.seq)
    return [msgspec.convert(body, Event) for body in await session.scalars(query)]


async def _state(session: AsyncSession, row: SubscriptionRow) -> Subscription:
    return folded(row.id, row.organisation_id, await _events(session, row.id))
