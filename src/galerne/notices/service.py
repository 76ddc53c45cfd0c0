"""Use cases of webhooks: endpoints, which news go where, how each delivery stands. None of them commits."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import and_, delete, func, select, tuple_
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import SYSTEM, Actor, Permission, require
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Forbidden, Ids, NotFound
from galerne.kernel.outbox import News
from galerne.kernel.sealing import Sealer
from galerne.notices.delivery import TOPICS, Delivery, DeliveryState, DueDelivery, Endpoint, NewEndpoint, Outcome
from galerne.notices.tables import DeliveryRow, EndpointRow, OldSecretRow
from galerne.notices.webhook import check_url, new_secret, payload, tried_again_at

MOST_ENDPOINTS = 20
"""Of one organisation."""
MOST_OLD_SECRETS = 4
"""That sign beside an endpoint's own: each is one more signature in every header."""
MOST_OVERLAP = timedelta(days=7)
"""For which a secret that was replaced may still sign."""
KEPT = timedelta(days=30)
"""For which deliveries that ended are kept, from their last attempt on."""

_HOUR = timedelta(hours=1)


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


async def rotate_secret(
    session: AsyncSession, actor: Actor, endpoint_id: str, overlap: timedelta, seal: tuple[Sealer, Ids], clock: Clock
) -> tuple[Endpoint, str, datetime]:
    """The endpoint, a new secret for it, which is shown this once, and until when older ones sign too; journalled.

    Until then whatever signed before signs too, unless its own time ends sooner; without `overlap` nothing does.
    `NotFound` for another's endpoint, `BadRequest` for more than `MOST_OVERLAP`, `Conflict` for too many rotations.
    """
    if not timedelta(0) <= overlap <= MOST_OVERLAP:
        raise BadRequest(f"An old secret signs for 0 to {MOST_OVERLAP // _HOUR} hours more.", param="overlap_hours")
    row, now, (sealer, ids) = await _own_endpoint(session, actor, endpoint_id), clock.now(), seal
    until = now + overlap
    await session.execute(delete(OldSecretRow).where(OldSecretRow.endpoint_id == row.id, OldSecretRow.until <= now))
    older = (await session.scalars(select(OldSecretRow).where(OldSecretRow.endpoint_id == row.id))).all()
    if overlap and len(older) >= MOST_OLD_SECRETS:
        raise Conflict(
            f"{MOST_OLD_SECRETS} older secrets still sign; wait, or have none sign any more (overlap_hours 0).",
            code="too_many_secrets",
        )
    for each in older:
        if overlap:
            each.until = min(each.until, until)
        else:
            await session.delete(each)
    if overlap:
        session.add(OldSecretRow(id=ids.new(), endpoint_id=row.id, sealed=row.sealed, until=until))
    secret = new_secret()
    row.sealed = sealer.seal(secret.encode(), _purpose(row.id))
    await session.flush()
    resource, hours = f"webhook_endpoint:{row.id}", overlap // _HOUR
    await append(session, [_entry("secret_rotated", actor, resource, now, overlap_hours=hours)])
    return _endpoint(row), secret, until


async def remove_endpoint(session: AsyncSession, actor: Actor, endpoint_id: str, clock: Clock) -> Endpoint:
    """The endpoint, which is no more, nor are its deliveries; journalled. `NotFound` for another's."""
    row = await _own_endpoint(session, actor, endpoint_id)
    await session.execute(delete(DeliveryRow).where(DeliveryRow.endpoint_id == endpoint_id))
    await session.execute(delete(OldSecretRow).where(OldSecretRow.endpoint_id == endpoint_id))
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


async def due_deliveries(
    session: AsyncSession, now: datetime, limit: int = 500, only: Delivery | None = None
) -> list[DueDelivery]:
    """What is to be tried by now, the longest due first; of `only` one delivery, whether it still is."""
    row, endpoint = DeliveryRow, EndpointRow
    query = select(row, endpoint.url, endpoint.sealed).join(endpoint, endpoint.id == row.endpoint_id)
    query = query.where(row.state == "waiting", row.next_at <= now).order_by(row.next_at, row.news_id).limit(limit)
    if only is not None:
        query = query.where(row.news_id == only.news_id, row.endpoint_id == only.endpoint_id)
    due = (await session.execute(query)).all()
    older = await _older_secrets(session, {found.endpoint_id for found, _, _ in due}, now)
    return [
        DueDelivery(_delivery(found), url, found.body.encode(), (sealed, *older[found.endpoint_id]))
        for found, url, sealed in due
    ]


async def forget_old(session: AsyncSession, now: datetime, limit: int = 1000) -> int:
    """Delete at most `limit` deliveries that ended longer ago than `KEPT`, and secrets that sign no more; how many
    deliveries that were. What waits is never deleted.
    """
    row, key = DeliveryRow, (DeliveryRow.news_id, DeliveryRow.endpoint_id)
    # When it was due last is no later than its last attempt, and has the index.
    is_old = and_(row.state.in_(("delivered", "dead")), row.next_at < now - KEPT, row.last_at < now - KEPT)
    found = (await session.execute(select(*key).where(is_old).limit(limit))).all()
    await session.execute(delete(OldSecretRow).where(OldSecretRow.until <= now))
    if not found:
        return 0
    # Whatever was sent again meanwhile is old no more.
    gone = await session.execute(delete(row).where(tuple_(*key).in_([tuple(each) for each in found]), is_old))
    return cast(CursorResult[Any], gone).rowcount


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


def opened_secrets(due: DueDelivery, sealer: Sealer) -> list[str]:
    """The secrets to sign a delivery with; `Unavailable` where another key sealed one."""
    return [sealer.open(each, _purpose(due.delivery.endpoint_id)).decode() for each in due.sealed]


async def _own_endpoint(session: AsyncSession, actor: Actor, endpoint_id: str) -> EndpointRow:
    _check_actor(actor)
    row = await session.get(EndpointRow, endpoint_id, with_for_update=True)
    if row is None or row.organisation_id != actor.organisation_id:
        raise NotFound("There is no such endpoint.", code="endpoint_not_found")
    return row


async def _older_secrets(session: AsyncSession, endpoints: Iterable[str], now: datetime) -> dict[str, list[bytes]]:
    row, found = OldSecretRow, defaultdict[str, list[bytes]](list)
    query = select(row).where(row.endpoint_id.in_(sorted(endpoints)), row.until > now)
    for each in await session.scalars(query.order_by(row.until.desc(), row.id.desc())):
        found[each.endpoint_id].append(each.sealed)
    return found


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
