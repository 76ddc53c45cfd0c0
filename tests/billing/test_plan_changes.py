"""An organisation that gets another plan pays by it from that moment on, however late its use is rated."""

from datetime import datetime, timedelta

import pytest

from galerne.billing import (
    Match,
    NewRate,
    NewRates,
    PriceChange,
    assign_price_list,
    change_prices,
    create_price_list,
    rate_batch,
    set_rates,
)
from galerne.governance import SYSTEM
from galerne.identity import OrganisationChange, change_organisation, operator_in
from galerne.kernel import Database, ManualClock
from galerne.metering import record
from galerne.models import ExternalModel, add_external
from tests.billing.rating.buckets import buckets_in
from tests.identity.tenants import NOW, Tenants, two_tenants
from tests.metering.events import event

USUAL, OF_TEAM = 1_000, 500  # nano for a thousand input tokens


def minute(number: int) -> datetime:
    return NOW + timedelta(minutes=number)


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    """Input costs half as much on the plan `team`."""
    tenants = await two_tenants(database)
    async with database.transaction() as session:
        await add_external(session, SYSTEM, ExternalModel(name="large", url="http://127.0.0.1:9/v1"), tenants.clock)
        usual = NewRates(
            currency="EUR", input_nano_per_million=10**6, cached_nano_per_million=0, output_nano_per_million=0
        )
        await set_rates(session, SYSTEM, "large", usual, tenants.ids, tenants.clock)
        await create_price_list(session, SYSTEM, "team", "for teams", tenants.clock)
        await assign_price_list(session, SYSTEM, ("plan", "team"), "team", tenants.clock)
        half = NewRate(match=Match(token_class="input", model_id="large"), currency="EUR", nano=10**6 // 2)
        others = [
            NewRate(match=Match(token_class=each, model_id="large"), currency="EUR", nano=0)
            for each in ("cached", "output")
        ]
        change = PriceChange(rates=(half, *others), list_id="team")
        await change_prices(session, SYSTEM, change, tenants.ids, tenants.clock)
    return tenants


async def get_plan(tenants: Tenants, plan: str, at_minute: int) -> None:
    async with tenants.database.transaction() as session:
        operator = await operator_in(session, tenants.stranger.organisation_id)
        await change_organisation(session, operator, OrganisationChange(plan=plan), ManualClock(minute(at_minute)))


async def use(tenants: Tenants, number: int, at_minute: int) -> None:
    whose = {"organisation_id": tenants.stranger.organisation_id, "model": "large"}
    async with tenants.database.transaction() as session:
        await record(session, [event(number, started_at=minute(at_minute), input_tokens=1_000, **whose)])


async def rate(tenants: Tenants, at_minute: int) -> int:
    """What all use costs once it is rated at this minute."""
    async with tenants.database.transaction() as session:
        await rate_batch(session, ManualClock(minute(at_minute)), after="")
    async with tenants.database.reading() as session:
        return sum(bucket.nano for bucket in (await buckets_in(session, f"{NOW:%Y-%m}")).values())


async def test_a_plan_counts_from_the_moment_in_which_it_was_given(tenants: Tenants) -> None:
    await use(tenants, 1, 1)
    assert await rate(tenants, 2) == USUAL
    await use(tenants, 2, 4)
    await get_plan(tenants, "team", 5)
    await use(tenants, 3, 10)
    assert await rate(tenants, 15) == USUAL + USUAL + OF_TEAM


async def test_of_several_plans_between_two_ratings_each_counts_for_its_time(tenants: Tenants) -> None:
    await use(tenants, 1, 1)
    await rate(tenants, 2)
    await get_plan(tenants, "team", 5)
    await use(tenants, 2, 6)
    await get_plan(tenants, "free", 7)
    await use(tenants, 3, 8)
    assert await rate(tenants, 15) == USUAL + OF_TEAM + USUAL


async def test_what_was_used_before_the_first_rating_is_priced_by_the_plan_of_its_time(tenants: Tenants) -> None:
    await use(tenants, 1, 1)
    await get_plan(tenants, "team", 5)
    await use(tenants, 2, 6)
    assert await rate(tenants, 15) == USUAL + OF_TEAM
