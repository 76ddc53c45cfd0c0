"""Subscriptions on both databases: who may, once and only once, what is recorded, and what gateways read of it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.billing import Plan
from galerne.billing.subscriptions import (
    Ask,
    Fee,
    Offer,
    Order,
    Subscription,
    advance_due,
    ask,
    find_subscription,
    list_plan_versions,
    organisation_charges,
    payment_failed,
    payment_received,
    publish_plan,
    subscribe,
)
from galerne.billing.subscriptions.schemas import subscription_fields
from galerne.governance import ROLE_PERMISSIONS, Actor, Role
from galerne.identity import find_organisation
from galerne.kernel import BadRequest, Conflict, Database, Forbidden, NotFound, run_in_session
from galerne.kernel.outbox import News, take_news, waiting_news
from galerne.metering import LimitSubject, NewLimit, rules_script, set_operator_limit
from galerne.notices import TOPICS
from tests.identity.tenants import NOW, Tenants, two_tenants

DAY = timedelta(days=1)


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    return await two_tenants(database)


async def begin(tenants: Tenants, plan: str = "pro", **order: Any) -> Subscription:
    async with tenants.database.transaction() as session:
        return await subscribe(session, tenants.stranger, Order(plan_id=plan, **order), tenants.ids, tenants.clock)


async def want(tenants: Tenants, what: Any, **asked: Any) -> Subscription:
    async with tenants.database.transaction() as session:
        return await ask(session, tenants.stranger, Ask(what=what, **asked), tenants.ids, tenants.clock)


async def windows(tenants: Tenants) -> dict[str, int]:
    organisation_id = tenants.stranger.organisation_id
    async with tenants.database.reading() as session:
        subject = LimitSubject(key_id="key", workspace_id=None, organisation_id=organisation_id, plan="none")
        found = await run_in_session(session, rules_script(subject, "model"))
    return {rule.window: rule.amount for rule in found}


async def plan_of(tenants: Tenants) -> str:
    async with tenants.database.reading() as session:
        return (await find_organisation(session, tenants.stranger.organisation_id)).plan


async def amounts(tenants: Tenants) -> list[int]:
    async with tenants.database.reading() as session:
        charges = await organisation_charges(
            session, tenants.stranger.organisation_id, tenants.clock.now() + timedelta(seconds=1)
        )
    return [charge.amount_nano for charge in charges]


async def test_a_plan_comes_with_its_windows_and_goes_with_them(tenants: Tenants) -> None:
    await begin(tenants)
    assert (await plan_of(tenants), await windows(tenants)) == ("pro", {"5h": 2_000_000, "week": 20_000_000})
    await want(tenants, "change", plan_id="team", seats=3)
    assert (await plan_of(tenants), await windows(tenants)) == ("team", {"5h": 9_000_000, "week": 90_000_000})
    await want(tenants, "seats", seats=2)
    assert (await windows(tenants))["5h"] == 6_000_000
    await want(tenants, "pause")
    assert (await plan_of(tenants), await windows(tenants)) == ("free", {"5h": 100_000, "week": 1_000_000})
    await want(tenants, "resume")
    await want(tenants, "change", plan_id="developer")
    assert (await plan_of(tenants), await windows(tenants)) == ("developer", {})


async def test_a_limit_that_the_operator_agreed_stands_above_the_plans(tenants: Tenants) -> None:
    agreed = NewLimit(
        scope="organisation",
        scope_id=tenants.stranger.organisation_id,
        quantity="tokens",
        window="5h",
        amount=7,
    )
    async with tenants.database.transaction() as session:
        await set_operator_limit(session, tenants.operator, agreed, tenants.clock)
    await begin(tenants)
    await want(tenants, "change", plan_id="developer")
    assert await windows(tenants) == {"5h": 7}


async def test_the_same_request_happens_once_and_another_under_its_name_is_refused(tenants: Tenants) -> None:
    first = await begin(tenants, request_id="r-1")
    assert await begin(tenants, request_id="r-1") == first
    with pytest.raises(Conflict) as other:
        await begin(tenants, plan="team", request_id="r-1")
    assert other.value.code == "idempotency_conflict"
    more = await want(tenants, "change", plan_id="team", seats=4, request_id="r-2")
    await want(tenants, "seats", seats=9)
    assert (await want(tenants, "change", plan_id="team", seats=4, request_id="r-2")).item.seats == 9
    with pytest.raises(Conflict):
        await want(tenants, "pause", request_id="r-2")
    assert more.seq == 2


async def test_an_organisation_has_one_subscription_at_a_time_and_one_trial_in_its_life(tenants: Tenants) -> None:
    assert (await begin(tenants, "team")).status == "trialing"
    with pytest.raises(Conflict) as second:
        await begin(tenants)
    assert second.value.code == "subscription_exists"
    await want(tenants, "cancel")
    assert (await begin(tenants, "team")).status == "active"


async def test_two_that_subscribe_at_once_make_one_subscription(tenants: Tenants) -> None:
    done = await asyncio.gather(begin(tenants), begin(tenants, "team"), return_exceptions=True)
    assert sorted(isinstance(each, Conflict) for each in done) == [False, True]


async def test_seats_added_at_once_by_several_are_all_charged(tenants: Tenants) -> None:
    await begin(tenants, "team", trial=False)
    await asyncio.gather(*(want(tenants, "seats", seats=seats) for seats in (2, 3, 4)))
    async with tenants.database.reading() as session:
        state = await find_subscription(session, tenants.stranger.organisation_id)
    assert sum(await amounts(tenants)) == state.item.price_nano


async def test_time_does_its_work_once_whoever_asks_and_however_late(tenants: Tenants) -> None:
    await begin(tenants)
    tenants.clock.current = NOW + 70 * DAY
    assert await amounts(tenants) == [14_990_000_000] * 3

    async def tick() -> int:
        async with tenants.database.transaction() as session:
            return await advance_due(session, tenants.ids, tenants.clock)

    assert sum(await asyncio.gather(tick(), tick(), tick())) >= 1
    assert await tick() == 0
    assert await amounts(tenants) == [14_990_000_000] * 3
    assert len(await tenants.journal("subscription.renewed")) == 2


async def test_an_unpaid_subscription_falls_back_to_free_and_a_payment_event_counts_once(tenants: Tenants) -> None:
    made = await begin(tenants)

    async def fail(attempt: str) -> Subscription:
        async with tenants.database.transaction() as session:
            return await payment_failed(session, made.id, "invoice", attempt, tenants.ids, tenants.clock)

    assert [(await fail(attempt)).unpaid[0].attempts for attempt in ("1", "1", "2")] == [1, 1, 2]
    assert await plan_of(tenants) == "pro"
    tenants.clock.current += 14 * DAY
    async with tenants.database.transaction() as session:
        await advance_due(session, tenants.ids, tenants.clock)
    assert await plan_of(tenants) == "free"
    async with tenants.database.transaction() as session:
        ended = await payment_received(session, made.id, "invoice", tenants.ids, tenants.clock)
    assert (ended.status, await plan_of(tenants)) == ("ended", "free")


async def test_each_failed_attempt_is_told_once_with_when_to_try_again(tenants: Tenants) -> None:
    made = await begin(tenants)
    told = list[News | None]()
    for attempt in ("1", "1", "2", "3", "4", "5"):
        async with tenants.database.transaction() as session:
            await payment_failed(session, made.id, "invoice", attempt, tenants.ids, tenants.clock)
            told += [await take_news(session, each) for each in await waiting_news(session)]
    since = tenants.clock.current.replace(microsecond=0)
    bodies = [each.body for each in told if each is not None and each.whose == made.organisation_id]
    assert [(each["invoice_id"], each["attempts"]) for each in bodies] == [("invoice", count) for count in range(1, 6)]
    assert [each["retry_at"] for each in bodies] == [
        *((since + days * DAY).isoformat() for days in (1, 3, 5, 7)),
        None,
    ]
    assert {(each["since"], each["gives_up_at"]) for each in bodies} == {
        (since.isoformat(), (since + 14 * DAY).isoformat())
    }
    assert {each.topic for each in told if each is not None} == {"payment.failed"} <= set(TOPICS)
    async with tenants.database.reading() as session:
        shown = subscription_fields(await find_subscription(session, made.organisation_id))
    assert shown["unpaid"] == [{"invoice_id": "invoice", "since": since, "attempts": 5, "retry_at": None}]


async def test_an_attempt_that_is_not_committed_is_not_told(tenants: Tenants) -> None:
    made = await begin(tenants)
    with pytest.raises(ZeroDivisionError):
        async with tenants.database.transaction() as session:
            await payment_failed(session, made.id, "invoice", "1", tenants.ids, tenants.clock)
            raise ZeroDivisionError
    async with tenants.database.reading() as session:
        assert await waiting_news(session) == []
        assert (await find_subscription(session, made.organisation_id)).status == "active"


async def test_a_late_payment_for_an_ended_subscription_leaves_the_next_one_alone(tenants: Tenants) -> None:
    made = await begin(tenants)
    async with tenants.database.transaction() as session:
        await payment_failed(session, made.id, "invoice", "1", tenants.ids, tenants.clock)
    await want(tenants, "cancel")
    await begin(tenants, "developer")
    async with tenants.database.transaction() as session:
        await payment_received(session, made.id, "invoice", tenants.ids, tenants.clock)
    assert await plan_of(tenants) == "developer"


async def test_whoever_has_a_version_keeps_its_fee_until_they_change(tenants: Tenants) -> None:
    await begin(tenants)
    offer = Offer(fees=(Fee(interval="month", currency="EUR", nano=20_000_000_000),))
    plan = Plan(id="pro", weight=3, tier="standard", description="dearer")
    async with tenants.database.transaction() as session:
        assert (await publish_plan(session, tenants.operator, plan, offer, tenants.clock)).version == 2
    tenants.clock.current += 40 * DAY
    assert await amounts(tenants) == [14_990_000_000] * 2
    assert (await want(tenants, "change", plan_id="pro")).item.fee_nano == 20_000_000_000
    assert [each["version"] for each in await tenants.journal("plan.published")] == [2]


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ({"plan": "platinum"}, NotFound),
        ({"plan": "enterprise"}, Forbidden),
        ({"currency": "JPY"}, BadRequest),
        ({"seats": 2}, BadRequest),
        ({"plan": "team", "seats": 0}, BadRequest),
        ({"time_zone": "Mars/Olympus"}, BadRequest),
    ],
)
async def test_an_order_that_cannot_be_is_refused_and_nothing_is_recorded(
    tenants: Tenants, order: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await begin(tenants, **order)
    assert (await amounts(tenants), await plan_of(tenants)) == ([], "developer")


@pytest.mark.parametrize("bad", [{"fees": (Fee(interval="month", currency="EUR", nano=-1),)}, {"trial_days": -1}])
async def test_an_offer_that_cannot_be_is_refused(tenants: Tenants, bad: dict[str, Any]) -> None:
    plan = Plan(id="pro", weight=3, tier="standard", description="")
    with pytest.raises(BadRequest):
        async with tenants.database.transaction() as session:
            await publish_plan(session, tenants.operator, plan, Offer(**bad), tenants.clock)
    async with tenants.database.reading() as session:
        assert {each.version for each in await list_plan_versions(session)} == {1}


@pytest.mark.parametrize("role", list(Role))
async def test_who_manages_billing_may_subscribe_and_the_operator_alone_publishes(tenants: Tenants, role: Role) -> None:
    mine = tenants.stranger
    tenants.stranger = Actor(mine.kind, mine.id, mine.organisation_id, None, ROLE_PERMISSIONS[role])
    if role in (Role.INSTALLATION_ADMIN, Role.ORGANIZATION_ADMIN, Role.BILLING):
        await begin(tenants)
    else:
        with pytest.raises(Forbidden):
            await begin(tenants)
    if role is not Role.INSTALLATION_ADMIN:
        plan = Plan(id="pro", weight=3, tier="standard", description="")
        with pytest.raises(Forbidden):
            async with tenants.database.transaction() as session:
                await publish_plan(session, tenants.stranger, plan, Offer(), tenants.clock)


@pytest.mark.parametrize("table", ["subscription_events", "plan_versions"])
async def test_the_database_keeps_what_was_recorded(tenants: Tenants, table: str) -> None:
    await begin(tenants)
    for change in (f"DELETE FROM {table}", f"UPDATE {table} SET plan_id = 'x'"):
        with pytest.raises(DBAPIError):
            async with tenants.database.transaction() as session:
                await session.execute(text(change))


async def test_every_change_is_journalled_with_who_asked(tenants: Tenants) -> None:
    await begin(tenants)
    await want(tenants, "cancel", when="period_end")
    assert (await tenants.journal("subscription.started"))[0]["fee_nano"] == "14990000000"
    assert len(await tenants.journal("subscription.cancel_scheduled")) == 1
    assert (await tenants.journal("organisation.changed"))[0]["plan"] == "pro"
