"""The price book on both databases: which rates count when, who hears of a change, and what cannot be undone."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.billing import NewRates, Plan, find_plan, list_plans, list_rates, rates_of, set_rates
from galerne.governance import SYSTEM
from galerne.journal import read_all
from galerne.kernel import BadRequest, Database, Ids, ManualClock, NotFound
from galerne.models import ExternalModel, add_external
from tests.identity.tenants import NOW

CHEAP = NewRates(currency="EUR", input_nano_per_million=5, cached_nano_per_million=1, output_nano_per_million=15)
DEAR = replace(CHEAP, input_nano_per_million=50)
HOUR = timedelta(hours=1)


@pytest.fixture
async def clock(database: Database) -> ManualClock:
    clock = ManualClock(NOW)
    async with database.transaction() as session:
        for name in ("large", "small", "org/with-slash"):
            await add_external(session, SYSTEM, ExternalModel(name=name, url="http://127.0.0.1:9/v1"), clock)
    return clock


async def put(database: Database, clock: ManualClock, new: NewRates, model: str = "large") -> None:
    async with database.transaction() as session:
        await set_rates(session, SYSTEM, model, new, Ids(), clock)


async def input_price(database: Database, hours: float, currency: str | None = None) -> int | None:
    async with database.reading() as session:
        rates = await rates_of(session, "large", NOW + hours * HOUR, currency)
    return None if rates is None else rates.input_nano_per_million


async def test_the_newest_rates_that_are_effective_count(database: Database, clock: ManualClock) -> None:
    await put(database, clock, CHEAP)
    await put(database, clock, replace(DEAR, effective_from=NOW + 10 * HOUR))
    clock.current += HOUR
    await put(database, clock, replace(CHEAP, input_nano_per_million=7))
    expected = {-0.1: None, 0: 5, 0.99: 5, 1: 7, 9.99: 7, 10: 50, 1000: 50}
    assert {hours: await input_price(database, hours) for hours in expected} == expected


async def test_of_rates_that_begin_together_those_set_last_count(database: Database, clock: ManualClock) -> None:
    later = NOW + 10 * HOUR
    await put(database, clock, replace(DEAR, effective_from=later))
    clock.current += HOUR
    await put(database, clock, replace(CHEAP, effective_from=later))
    assert await input_price(database, 10) == 5


async def test_each_currency_has_its_own_rates_and_the_newest_answer_if_none_is_named(
    database: Database, clock: ManualClock
) -> None:
    await put(database, clock, CHEAP)
    await put(database, clock, replace(DEAR, currency="USD", effective_from=NOW + HOUR))
    assert [await input_price(database, 2, currency) for currency in ("EUR", "USD", "CHF", None)] == [5, 50, None, 50]
    async with database.reading() as session:
        listed = [(rates.model_id, rates.currency) for rates in await list_rates(session, NOW + 2 * HOUR)]
    assert listed == [("large", "USD"), ("large", "EUR")]


async def test_a_model_without_a_price_has_none(database: Database, clock: ManualClock) -> None:
    await put(database, clock, CHEAP)
    async with database.reading() as session:
        assert await rates_of(session, "small", NOW) is None
        assert [rates.model_id for rates in await list_rates(session, NOW)] == ["large"]


async def test_setting_rates_is_journalled(database: Database, clock: ManualClock) -> None:
    await put(database, clock, CHEAP)
    async with database.reading() as session:
        newest = (await read_all(session, limit=1))[0]
    assert (newest.action, newest.resource) == ("rates.set", "rates:large")
    assert newest.detail == {
        "currency": "EUR",
        "effective_from": NOW.isoformat(),
        "input_nano_per_million": 5,
        "cached_nano_per_million": 1,
        "output_nano_per_million": 15,
    }


@pytest.mark.parametrize(
    ("model", "new", "error"),
    [
        ("nothing", CHEAP, NotFound),
        ("large", replace(CHEAP, input_nano_per_million=-1), BadRequest),
        ("large", replace(CHEAP, effective_from=NOW - HOUR), BadRequest),
    ],
)
async def test_what_is_refused_leaves_the_price_book_as_it_was(
    database: Database, clock: ManualClock, model: str, new: NewRates, error: type[Exception]
) -> None:
    await put(database, clock, CHEAP)
    with pytest.raises(error):
        await put(database, clock, new, model)
    async with database.reading() as session:
        assert await session.scalar(text("SELECT count(*) FROM rates")) == 3


@pytest.mark.parametrize("change", ["UPDATE rates SET nano = 0", "DELETE FROM rates"])
async def test_the_database_itself_keeps_rates_as_they_were_set(
    database: Database, clock: ManualClock, change: str
) -> None:
    await put(database, clock, CHEAP)
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.transaction() as session:
            await session.execute(text(change))


async def test_the_plans_that_a_new_installation_has(database: Database) -> None:
    async with database.reading() as session:
        plans = await list_plans(session)
        assert await find_plan(session, "pro") in plans
        with pytest.raises(NotFound) as missing:
            await find_plan(session, "platinum")
    assert missing.value.code == "plan_not_found"
    assert [(plan.id, plan.weight, plan.tier) for plan in plans] == [
        ("free", 1, "standard"),
        ("developer", 2, "standard"),
        ("pro", 3, "standard"),
        ("team", 4, "priority"),
        ("enterprise", 8, "priority"),
    ]


def test_a_plan_allows_its_tier_and_those_served_later() -> None:
    def allowed(tier: str) -> list[bool]:
        plan = Plan(id="p", weight=1, tier=tier, description="")  # type: ignore[arg-type]  # one of the three
        return [plan.allows(asked) for asked in ("priority", "standard", "batch")]

    assert allowed("priority") == [True, True, True]
    assert allowed("standard") == [False, True, True]
    assert allowed("batch") == [False, False, True]
