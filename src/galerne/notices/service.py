"""Use cases of webhooks: endpoints, which news go where, how each delivery stands. None of them commits."""

from dataclasses import replace
from datetime import datetime
from typing import cast

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import SYSTEM, Actor, Permission, require
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Forbidden, Ids, NotFound
from galerne.kernel.outbox import News
from galerne.kernel.sealing import Sealer
from galerne.notices.delivery import TOPICS, Delivery, DeliveryState, DueDelivery, Endpoint, NewEndpoint, Outcome
from galerne.notices.tables import DeliveryRow, EndpointRow
from galerne.notices.webhook import check_url, new_secret, payload, tried_again_at

MOST_ENDPOINTS = 20
"""Of one organisation."""


async def add_endpoint(
    session: AsyncSession, actor: Actor, new: NewEndpoint, sealer: Sealer, ids: Ids, clock: Clock
) -> tuple[Endpoint, str]:
    """A new endpoint and its secret, which is shown this once and not journalled, while that it was added is.

    Raises `BadRequest` for where nothing is sent to, `Conflict` for too many.
    """
    _check_actor(actor)
    check_url(new.url, inside=new.inside)
    chosen = tuple(sorted(set(new.topics))) or TOPICS
    if unknown := sorted(set(chosen) - set(TOPICS)):
        raise BadRequest(f"There is no topic '{unknown[0][:60]}'; there are {', '.join(TOPICS)}.", param="topics")
    count = select(func.count()).where(EndpointRow.organisation_id == actor.organisation_id)
    if int(await session.scalar(count) or 0) >= MOST_ENDPOINTS:
        raise Conflict(f"There are {MOST_ENDPOINTS} endpoints already; remove one.", code="too_many_endpoints")
    secret, now = new_secret(), clock.now()
    row = EndpointRow(
        id=ids.new(),
        organisation_id=actor.organisation_id,
        url=new.url,
        topics=list(chosen),
        sealed=b"",
        created_at=now,
    )
    row.sealed = sealer.seal(secret.encode(), _purpose(row.id))
    session.add(row)
    await session.flush()
    await append(session, [_entry("endpoint_added", actor, f"webhook_endpoint:{row.id}", now)])
    return _endpoint(row), secret


async def remove_endpoint(session: AsyncSession, actor: Actor, endpoint_id: str, clock: Clock) -> Endpoint:
    """The endpoint, which is no more, nor are its deliveries; journalled. `NotFound` for another's."""
    _check_actor(actor)
    row = await session.get(EndpointRow, endpoint_id)
    if row is None or row.organisation_id != actor.organisation_id:
        raise NotFound("There is no such endpoint.", code="endpoint_not_found")
    await session.execute(delete(DeliveryRow).where(DeliveryRow.endpoint_id == endpoint_id))
    await session.delete(row)
    await session.flush()
    await append(session, [_entry("endpoint_removed", actor, f"webhook_endpoint:{row.id}", clock.now())])
    return _endpoint(row)


async def list_endpoints(session: AsyncSession, organisation_id: str | None) -> list[Endpoint]:
    """An organisation's endpoints, or, for the operator alone, all."""
    query = select(EndpointRow).order_by(EndpointRow.id)
    if organisation_id is not None:
        query = query.where(EndpointRow.organisation_id == organisation_id)
    return [_endpoint(row) for row in await session.scalars(query)]


async def hear(session: AsyncSession, news: News) -> None:
    """Have news delivered to each endpoint of its organisation that wants such; told twice, once."""
    endpoints = await session.scalars(select(EndpointRow).where(EndpointRow.organisation_id == news.whose))
    for row in [each for each in endpoints if news.topic in each.topics]:
        if await session.get(DeliveryRow, (news.id, row.id)) is None:
            session.add(
                DeliveryRow(
                    news_id=news.id,
                    endpoint_id=row.id,
                    organisation_id=news.whose,
                    topic=news.topic,
                    body=payload(news.topic, news.at, news.body),
                    state="waiting",
                    attempts=0,
                    next_at=news.at,
                    created_at=news.at,
                )
            )
    await session.flush()


async def due_deliveries(session: AsyncSession, now: datetime, limit: int = 500) -> list[DueDelivery]:
    """What is to be tried by now, the longest due first."""
    row, endpoint = DeliveryRow, EndpointRow
    query = select(row, endpoint.url, endpoint.sealed).join(endpoint, endpoint.id == row.endpoint_id)
    query = query.where(row.state == "waiting", row.next_at <= now).order_by(row.next_at, row.news_id).limit(limit)
    return [
        DueDelivery(_delivery(found), url, found.body.encode(), sealed)
        for found, url, sealed in await session.execute(query)
    ]


async def note_attempt(session: AsyncSession, tried: Delivery, outcome: Outcome, now: datetime) -> Delivery | None:
    """How the delivery stands after an attempt; journalled once it is dead. None where another attempt came between."""
    row = await session.get(DeliveryRow, (tried.news_id, tried.endpoint_id), with_for_update=True)
    if row is None or row.state != "waiting" or row.attempts != tried.attempts:
        return None
    row.attempts, row.last_at = row.attempts + 1, now
    row.status, row.problem = outcome.status, outcome.problem
    again = None if outcome.is_success else tried_again_at(row.attempts, now)
    row.state = "delivered" if outcome.is_success else "dead" if again is None else "waiting"
    row.next_at = again or row.next_at
    await session.flush()
    if row.state == "dead":
        whose = replace(SYSTEM, organisation_id=row.organisation_id)
        detail = {"endpoint": row.endpoint_id, "topic": row.topic, "attempts": row.attempts}
        await append(session, [_entry("dead", whose, f"webhook:{row.news_id}", now, **detail)])
    return _delivery(row)


async def resend(session: AsyncSession, actor: Actor, news_id: str, endpoint_id: str, clock: Clock) -> Delivery:
    """Have a delivery tried again from the start, also one that is dead or was delivered; journalled."""
    _check_actor(actor)
    row = await session.get(DeliveryRow, (news_id, endpoint_id), with_for_update=True)
    if row is None or row.organisation_id != actor.organisation_id:
        raise NotFound("There is no such delivery.", code="delivery_not_found")
    row.state, row.attempts, row.next_at = "waiting", 0, clock.now()
    await session.flush()
    await append(session, [_entry("resent", actor, f"webhook:{news_id}", clock.now(), endpoint=endpoint_id)])
    return _delivery(row)


async def list_deliveries(
    session: AsyncSession, organisation_id: str | None, state: DeliveryState | None = None, limit: int = 100
) -> list[Delivery]:
    """Deliveries, newest first, of one organisation or, for the operator alone, of all."""
    row = DeliveryRow
    query = select(row).order_by(row.created_at.desc(), row.news_id, row.endpoint_id).limit(limit)
    if organisation_id is not None:
        query = query.where(row.organisation_id == organisation_id)
    if state is not None:
        query = query.where(row.state == state)
    return [_delivery(each) for each in await session.scalars(query)]


def opened_secret(due: DueDelivery, sealer: Sealer) -> str:
    """The secret to sign a delivery with; `Unavailable` where another key sealed it."""
    return sealer.open(due.sealed, _purpose(due.delivery.endpoint_id)).decode()


def _purpose(endpoint_id: str) -> str:
    return f"webhook_endpoints.{endpoint_id}"


def _check_actor(actor: Actor) -> None:
    require(actor, Permission.BILLING_MANAGE)
    if actor.workspace_id is not None:
        raise Forbidden("A workspace's key cannot set webhooks; use a key of the whole organisation.")


def _entry(action: str, actor: Actor, resource: str, at: datetime, **detail: str | int | bool | None) -> Entry:
    return Entry(action=f"webhook.{action}", actor=actor, resource=resource, outcome="done", at=at, detail=detail)


def _endpoint(row: EndpointRow) -> Endpoint:
    return Endpoint(
        id=row.id,
        organisation_id=row.organisation_id,
        url=row.url,
        topics=tuple(row.topics),
        created_at=row.created_at,
    )


def _delivery(row: DeliveryRow) -> Delivery:
    return Delivery(
        news_id=row.news_id,
        endpoint_id=row.endpoint_id,
        organisation_id=row.organisation_id,
        topic=row.topic,
        state=cast(DeliveryState, row.state),
        attempts=row.attempts,
        next_at=row.next_at,
        last_at=row.last_at,
        status=row.status,
        problem=row.problem,
        created_at=row.created_at,
    )
