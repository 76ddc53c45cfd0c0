"""One walk over all customers' requests gives each the same draft as a walk over its own."""

from dataclasses import replace
from datetime import timedelta

import pytest

from galerne.billing import Counts, close_period, correct_usage, rate_batch, set_rates
from galerne.billing.invoices import collect_month
from galerne.billing.invoices.month_requests import MonthKnown, month_requests
from galerne.billing.prices.reading import read_book
from galerne.governance import SYSTEM
from galerne.kernel import Ids
from galerne.metering import record
from tests.billing.invoices.customers import CLOSING, NOVEMBER, OCTOBER, PRICES, SEPTEMBER, House
from tests.metering.events import event

DAY = timedelta(days=1)
PERIOD = "2026-10"


async def rate(house: House) -> None:
    more, after = True, ""
    while more:
        async with house.database.transaction() as session:
            batch = await rate_batch(session, house.clock, after, limit=4)
        more, after = batch.more, batch.last_id


async def customers_of_every_sort(house: House) -> list[str]:
    names = [await house.customer(name) for name in ("plain", "late", "corrected", "prepaid", "wrong clock", "nothing")]
    plain, late, corrected, prepaid, wrong, _ = names
    await house.use(late, (1000, 3, 7), (5, 0, 0), at=SEPTEMBER + 5 * DAY)
    house.clock.current = OCTOBER
    async with house.database.transaction() as session:
        await close_period(session, SYSTEM, "2026-09", house.clock)
    await house.use(plain, *((number * 1000, number, number + 1) for number in range(9)))
    wrongly = await house.use(corrected, *((70, 1, 1) for _ in range(6)), at=OCTOBER + DAY)
    await house.grant(prepaid, 10**9)
    paid = await house.use(prepaid, (90_000, 0, 0), (80_000, 0, 5), (0, 0, 3))
    await house.settle(prepaid, {paid[0]: 36_000, paid[1]: 32_008})
    ahead = f"{int((NOVEMBER + DAY).timestamp() * 1000):012x}7{1:019x}"
    behind = f"{int((SEPTEMBER + DAY).timestamp() * 1000):012x}7{2:019x}"
    async with house.database.transaction() as session:
        for name in (ahead, behind):
            own = event(id=name, organisation_id=wrong, model="large", input_tokens=77, started_at=OCTOBER + DAY)
            await record(session, [own])
    await rate(house)
    house.clock.current = OCTOBER + 2 * DAY
    async with house.database.transaction() as session:
        await set_rates(session, SYSTEM, "large", replace(PRICES, input_nano_per_million=10**9), Ids(), house.clock)
    await house.use(plain, (123, 4, 5), (99, 0, 0), at=OCTOBER + 3 * DAY)
    await house.use(corrected, (123, 4, 5), at=OCTOBER + 3 * DAY)
    await rate(house)
    async with house.database.transaction() as session:
        await correct_usage(session, SYSTEM, wrongly[1], Counts(9, 9, 9), "a test", house.clock)
        await correct_usage(session, SYSTEM, wrongly[3], None, "a test", house.clock)
        await correct_usage(session, SYSTEM, paid[1], Counts(80_000, 0, 6), "a test", house.clock)
        await close_period(session, SYSTEM, PERIOD, house.clock)
        await correct_usage(session, SYSTEM, wrongly[4], None, "billed in November", house.clock)
    house.clock.current = CLOSING
    return names


@pytest.mark.parametrize("page", [3, 20_000])
async def test_drafts_are_those_of_each_customers_own_walk(
    house: House, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = await customers_of_every_sort(house)
    monkeypatch.setattr("galerne.billing.invoices.month_requests._PAGE", page)
    parts: list[float] = []
    for period, until in ((PERIOD, NOVEMBER), ("2026-11", NOVEMBER + DAY)):
        found = await month_requests(house.database, period, names, parts.append)
        async with house.database.reading() as session:
            known = MonthKnown(found, {rate.id: rate for rate in (await read_book(session)).rates})
            for name in names:
                alone = await collect_month(session, name, period, until, "en")
                assert await collect_month(session, name, period, until, "en", known) == alone
                assert bool(alone) == (name != names[-1] and (period == PERIOD or name == names[2]))
    assert parts
    assert all(0 <= part <= 1 for part in parts)


async def test_others_than_those_who_are_asked_for_are_passed_by(house: House) -> None:
    names = await customers_of_every_sort(house)
    assert list(await month_requests(house.database, PERIOD, names[:1])) == names[:1]
