"""Deliveries that ended are forgotten after thirty days, by a duty; on both databases."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from galerne.apps.worker import Worker
from galerne.kernel import utc_text
from galerne.kernel.outbox import News
from galerne.notices import hear, resend
from galerne.notices.service import KEPT
from tests.notices.telling import Told


async def hear_news(told: Told, *names: str) -> None:
    at = told.house.clock.current
    async with told.house.database.transaction() as session:
        for name in names:
            await hear(session, News(id=name, topic="budget.reached", whose=told.customer, body={}, at=at))


async def run(told: Told, duty: str) -> int:
    (state,) = await Worker(told.house.database, told.house.clock, told.settings).run_now([duty])
    assert state.problem is None
    return state.done


async def names(told: Told) -> set[str]:
    return {each.news_id for each in await told.deliveries()}


async def test_what_was_delivered_is_kept_for_thirty_days_from_then_on(told: Told) -> None:
    await hear_news(told, "a")
    told.house.clock.current += 3 * KEPT  # nobody sent it for long
    await run(told, "webhooks")
    assert [each.state for each in await told.deliveries()] == ["delivered"]
    assert await run(told, "old-webhooks") == 0
    told.house.clock.current += KEPT
    assert await run(told, "old-webhooks") == 0
    told.house.clock.current += timedelta(microseconds=1)
    assert await run(told, "old-webhooks") == 1
    assert await names(told) == set()
    assert len(told.receiver.received) == 1


async def test_what_is_dead_is_forgotten_too_and_what_waits_or_is_sent_again_is_not(told: Told) -> None:
    told.receiver.status = 500
    await hear_news(told, "dead", "again")
    while any(each.state == "waiting" for each in await told.deliveries()):
        told.house.clock.current = min(each.next_at for each in await told.deliveries() if each.state == "waiting")
        await run(told, "webhooks")
    told.house.clock.current += 2 * KEPT
    async with told.house.database.transaction() as session:
        await resend(session, told.actor, "again", told.endpoint_id, told.house.clock)
    await hear_news(told, "new")
    told.house.clock.current += 2 * KEPT
    assert await run(told, "old-webhooks") == 1
    assert await names(told) == {"again", "new"}


async def test_many_go_in_parts_and_secrets_that_sign_no_more_with_them(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("galerne.apps.duties._FORGOTTEN", 10)
    await hear_news(told, *(f"n{number}" for number in range(21)))
    at = told.house.clock.current
    async with told.house.database.transaction() as session:
        await session.execute(
            text("UPDATE webhook_deliveries SET state = 'delivered', attempts = 1, last_at = next_at")
        )
        secrets = text("INSERT INTO webhook_old_secrets SELECT :name, id, sealed, :until FROM webhook_endpoints")
        for name, until in (("over", at + KEPT), ("signs", at + 2 * KEPT)):
            moment: datetime | str = utc_text(until) if told.house.database.is_sqlite else until
            await session.execute(secrets, {"name": name, "until": moment})
    told.house.clock.current += KEPT + timedelta(seconds=1)
    assert await run(told, "old-webhooks") == 21
    async with told.house.database.reading() as session:
        assert list(await session.scalars(text("SELECT id FROM webhook_old_secrets"))) == ["signs"]
