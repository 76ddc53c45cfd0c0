"""Budgets on both databases: alerts once, hard ones as limits, costs shown to whom they belong."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.billing import NewRates, Period, rate_batch, set_rates
from galerne.billing.budgets import (
    Alert,
    Budget,
    NewBudget,
    give_alerts,
    list_alerts,
    list_budgets,
    remove_budget,
    set_budget,
    set_cost_centre,
    showback,
)
from galerne.billing.budgets.thresholds import budget_period, reached
from galerne.governance import SYSTEM
from galerne.identity import NewWorkspace, create_workspace
from galerne.kernel import BadRequest, Database, NotFound
from galerne.metering import list_limits, record
from galerne.models import ExternalModel, add_external
from tests.identity.tenants import NOW, Tenants, two_tenants
from tests.metering.events import event


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    tenants = await two_tenants(database)
    new = NewRates(currency="EUR", input_nano_per_million=10**6, cached_nano_per_million=0, output_nano_per_million=0)
    async with database.transaction() as session:
        await add_external(session, SYSTEM, ExternalModel(name="large", url="http://127.0.0.1:9/v1"), tenants.clock)
        await set_rates(session, SYSTEM, "large", new, tenants.ids, tenants.clock)
    return tenants


async def spend(tenants: Tenants, number: int, nano: int, **whose: Any) -> None:
    used = event(
        number,
        organisation_id=tenants.stranger.organisation_id,
        model="large",
        started_at=tenants.clock.now(),
        input_tokens=nano,
        **whose,
    )
    async with tenants.database.transaction() as session:
        await record(session, [used])
    async with tenants.database.transaction() as session:
        await rate_batch(session, tenants.clock, after="")


async def budget(tenants: Tenants, scope: Any = "organisation", scope_id: str = "", **more: Any) -> Budget:
    subject = scope_id or tenants.stranger.organisation_id
    fields: dict[str, Any] = {"window": "month", "nano": 100, "currency": "EUR"} | more
    async with tenants.database.transaction() as session:
        new = NewBudget(scope=scope, scope_id=subject, **fields)
        return await set_budget(session, tenants.stranger, new, tenants.ids, tenants.clock)


async def alerts(tenants: Tenants) -> list[int]:
    async with tenants.database.transaction() as session:
        given: list[Alert] = await give_alerts(session, tenants.stranger.organisation_id, tenants.clock)
    return [alert.percent for alert in given]


async def test_each_threshold_alerts_once_a_period_whoever_looks(tenants: Tenants) -> None:
    await budget(tenants)
    await spend(tenants, 1, 49)
    assert await alerts(tenants) == []
    await spend(tenants, 2, 31)
    seen = await asyncio.gather(*(alerts(tenants) for _ in range(4)))
    assert sorted(percent for each in seen for percent in each) == [50, 80]
    await spend(tenants, 3, 500)
    assert (await alerts(tenants), await alerts(tenants)) == ([100], [])
    tenants.clock.current = NOW + timedelta(days=31)
    await spend(tenants, 4, 50)
    assert await alerts(tenants) == [50]
    assert [each["percent"] for each in await tenants.journal("budget.reached")] == [50, 80, 100, 50]
    async with tenants.database.reading() as session:
        assert len(await list_alerts(session, tenants.stranger.organisation_id)) == 4
        assert await list_alerts(session, tenants.operator.organisation_id) == []


async def test_a_hard_budget_is_a_limit_in_money_and_a_soft_one_none(tenants: Tenants) -> None:
    async def limits() -> list[tuple[str, str, int]]:
        async with tenants.database.reading() as session:
            found = await list_limits(session, tenants.stranger, NOW)
        return [(use.rule.quantity, use.rule.window, use.rule.amount) for use in found]

    hard = await budget(tenants, hard=True)
    assert await limits() == [("nano", "month", 100)]
    assert (await budget(tenants, hard=True, nano=70)).id == hard.id
    assert await limits() == [("nano", "month", 70)]
    await budget(tenants)
    assert await limits() == []
    again = await budget(tenants, hard=True)
    async with tenants.database.transaction() as session:
        await remove_budget(session, tenants.stranger, again.id, tenants.clock)
    assert await limits() == []


async def test_costs_are_shown_to_the_keys_cost_centre_or_its_workspaces(tenants: Tenants) -> None:
    async with tenants.database.transaction() as session:
        new = NewWorkspace(name="risk")
        workspace = await create_workspace(session, tenants.stranger, new, tenants.ids, tenants.clock)
        own = await tenants.key(session, tenants.stranger, workspace_id=workspace.id)
        for kind, subject, name in (("workspace", workspace.id, "risk"), ("key", own.key_id, "lab")):
            await set_cost_centre(session, tenants.stranger, (kind, subject), name, tenants.clock)  # type: ignore[arg-type]  # scopes
    await budget(tenants, "cost_centre", "risk")
    await spend(tenants, 1, 60, workspace_id=workspace.id, key_id="other")
    await spend(tenants, 2, 30, workspace_id=workspace.id, key_id=own.key_id)
    await spend(tenants, 3, 7, workspace_id=None, key_id="free")
    organisation_id = tenants.stranger.organisation_id
    period = Period(NOW - timedelta(days=1), NOW + timedelta(days=1))
    async with tenants.database.reading() as session:
        shares = await showback(session, organisation_id, "EUR", period)
        uses = await list_budgets(session, organisation_id, tenants.clock.now())
    assert [(share.cost_centre, share.nano) for share in shares] == [("risk", 60), ("lab", 30), (None, 7)]
    assert [use.spent_nano for use in uses] == [60]
    assert await alerts(tenants) == [50]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"nano": 0}, BadRequest),
        ({"nano": -5}, BadRequest),
        ({"currency": "euro"}, BadRequest),
        ({"scope": "cost_centre", "scope_id": "x", "hard": True}, BadRequest),
        ({"scope": "workspace", "scope_id": "unheard-of"}, NotFound),
        ({"scope": "key", "scope_id": "unheard-of"}, NotFound),
        ({"scope_id": "another"}, NotFound),
    ],
)
async def test_a_budget_that_cannot_be_is_refused(
    tenants: Tenants, bad: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await budget(tenants, **bad)


async def test_the_database_keeps_the_alerts_that_were_given(tenants: Tenants) -> None:
    await budget(tenants)
    await spend(tenants, 1, 50)
    await alerts(tenants)
    with pytest.raises(DBAPIError, match="append-only"):
        async with tenants.database.transaction() as session:
            await session.execute(text("DELETE FROM budget_alerts"))


def test_thresholds_are_reached_exactly() -> None:
    assert [reached(spent, 100) for spent in (49, 50, 79, 80, 100)] == [[], [50], [50], [50, 80], [50, 80, 100]]
    assert reached(1, 3) == []


@pytest.mark.parametrize(
    ("window", "start", "end"),
    [("day", "2026-11-29", "2026-11-30"), ("week", "2026-11-23", "2026-11-30"), ("month", "2026-11-01", "2026-12-01")],
)
def test_periods_are_those_of_limits(window: Any, start: str, end: str) -> None:
    period = budget_period(window, datetime.fromisoformat("2026-11-29T23:59:59Z"))
    assert (f"{period.start:%Y-%m-%d}", f"{period.end:%Y-%m-%d}") == (start, end)
