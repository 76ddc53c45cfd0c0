"""A month's lines: steps over all that was used in it, late use as the difference, amounts that recompute."""

from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.billing import (
    Counts,
    LineKey,
    LineSum,
    Match,
    NewRate,
    PriceChange,
    Rate,
    Step,
    UsageLine,
    change_prices,
    close_period,
    correct_usage,
    lines_of,
    rate_batch,
    usage_lines,
)
from galerne.billing.prices.volume_tiers import amount_nano, tier_quantities
from galerne.billing.rating.rater import tier_prices
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from galerne.metering import record
from tests.billing.books import rate
from tests.billing.rating.test_in_the_database import event
from tests.identity.tenants import NOW

STEPS = (Step(100, 8), Step(1000, 5))


def stepped(mode: str | None, nano: int = 10, per: int = 1, steps: tuple[Step, ...] = STEPS) -> dict[str, Rate]:
    found = rate(nano, token_class="input")
    return {
        found.id: Rate(
            id=found.id,
            list_id=found.list_id,
            version=1,
            currency="EUR",
            match=found.match,
            effective_from=found.effective_from,
            nano=nano,
            per=per,
            volume=mode,  # type: ignore[arg-type]  # one of the modes
            steps=steps if mode else (),
        )
    }


def key(model: str = "large", factor: str = "") -> LineKey:
    return LineKey(model, "input", "standard", "", False, "r1" + factor, 0)


def used(quantity: int, nano: int, before: tuple[int, int] = (0, 0), model: str = "large") -> LineSum:
    return LineSum(key(model), "EUR", quantity, nano, *before)


def short(lines: Sequence[UsageLine]) -> list[tuple[Any, ...]]:
    return [(each.line.tier_index, each.quantity, each.nano, each.volume_nano, each.rounding_nano) for each in lines]


@pytest.mark.parametrize(
    ("mode", "sums", "lines"),
    [
        (None, [used(1500, 15_000)], [(0, 1500, 15_000, 0, 0)]),
        (None, [used(0, 3)], [(0, 0, 0, 0, -3)]),
        (None, [used(7, 71)], [(0, 7, 70, 0, -1)]),
        ("graduated", [used(101, 1010)], [(0, 100, 1000, 0, 0), (1, 1, 8, -2, 0)]),
        ("volume", [used(101, 1010)], [(1, 101, 808, -202, 0)]),
        ("graduated", [used(150, 1500, (90, 900))], [(0, 10, 100, 0, 0), (1, 50, 400, -100, 0)]),
        ("volume", [used(150, 1500, (90, 900))], [(0, -90, -900, 0, 0), (1, 150, 1200, -300, 0)]),
        ("graduated", [used(90, 900, (150, 1500))], [(0, -10, -100, 0, 0), (1, -50, -400, 100, 0)]),
    ],
)
def test_golden_lines(mode: str | None, sums: list[LineSum], lines: list[tuple[int, ...]]) -> None:
    assert short(lines_of(stepped(mode), "2026-11", sums)) == lines


def test_lines_at_one_price_reach_steps_together_and_at_another_alone() -> None:
    sums = [used(80, 800), used(80, 800, model="small"), LineSum(key(factor="*1/2"), "EUR", 80, 400, 0, 0)]
    lines = lines_of(stepped("graduated"), "2026-11", sums)
    assert [(each.line.model_id, each.line.tier_index, each.quantity, each.nano) for each in lines] == [
        ("large", 0, 80, 800),
        ("large", 0, 80, 400),
        ("small", 0, 20, 200),
        ("small", 1, 60, 480),
    ]


moves = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-2000, 2000), st.integers(-50, 50)), max_size=4),
    min_size=1,
    max_size=4,
)


@given(moves, st.sampled_from([None, "graduated", "volume"]), st.integers(1, 50), st.integers(1, 9))
def test_over_all_periods_the_lines_are_those_of_the_whole_month(
    periods: list[list[tuple[int, int, int]]], mode: str | None, nano: int, per: int
) -> None:
    rates = stepped(mode, nano, per)
    sums: dict[int, tuple[int, int]] = dict.fromkeys(range(3), (0, 0))
    before = dict(sums)
    billed: list[UsageLine] = []
    for moved in periods:
        for model, quantity, amount in moved:
            had = sums[model]
            sums[model] = (max(0, had[0] + quantity), max(0, had[1] + amount))
        found = [LineSum(key(str(model)), "EUR", *sums[model], *before[model]) for model in range(3)]
        lines = lines_of(rates, "2026-11", found)
        assert lines == lines_of(rates, "2026-11", found[::-1])
        billed += lines
        before = dict(sums)
    for each in billed:
        exact = Fraction(each.quantity * each.price_nano, each.per)
        assert each.nano == round(exact) == each.requests_nano + each.volume_nano + each.rounding_nano
    assert sum(each.requests_nano for each in billed) == sum(amount for _, amount in sums.values())
    rate, prices, starts = tier_prices(rates, "r1")
    (whole,) = tier_quantities(starts, rate.volume, [sum(quantity for quantity, _ in sums.values())])
    by_tier = {tier: sum(each.quantity for each in billed if each.line.tier_index == tier) for tier in range(3)}
    assert by_tier == {tier: whole[tier] if tier < len(whole) else 0 for tier in range(3)}
    amounts = map(amount_nano, whole, prices)
    assert abs(sum(each.nano for each in billed) - sum(amounts)) <= len(billed)


async def test_a_months_lines_and_what_a_late_event_and_a_correction_change(database: Database) -> None:
    clock, late = ManualClock(NOW), event(tokens=(70, 0, 0))
    new = [NewRate(match=Match(token_class="output"), currency="EUR", nano=7_000_000)]
    new.append(
        NewRate(
            match=Match(token_class="input"),
            currency="EUR",
            nano=10_000_000,
            volume="graduated",
            steps=(Step(100, 8_000_000),),
        )
    )
    async with database.transaction() as session:
        await change_prices(session, SYSTEM, PriceChange(rates=tuple(new)), Ids(), clock)
        await record(session, [early := event(tokens=(60, 0, 1)), event("small", tokens=(10, 0, 0))])
        await rate_batch(session, clock, after="")
        november = await usage_lines(session, "org", "2026-11")
        await close_period(session, SYSTEM, "2026-11", clock)
        await record(session, [late])
        await rate_batch(session, clock, after="")
        december = await usage_lines(session, "org", "2026-12")
        assert await usage_lines(session, "org", "2026-11") == november
        clock.current += timedelta(days=30)
        await close_period(session, SYSTEM, "2026-12", clock)
        await correct_usage(session, SYSTEM, early.id, Counts(0, 0, 1), "counted twice", clock)
        january = await usage_lines(session, "org", "2027-01")
        assert await usage_lines(session, "org", "2026-10") == []
        assert await usage_lines(session, "org", "2027-02") == []
    assert short(november) == [(0, 60, 600, 0, 0), (0, 1, 7, 0, 0), (0, 10, 100, 0, 0)]
    assert short(december) == [(0, 40, 400, 0, 0), (1, 30, 240, -60, 0), (0, -10, -100, 0, 0), (1, 10, 80, -20, 0)]
    assert sum(each.nano for each in january) == 80 * 10 - 1320
    assert {each.month for each in december + january} == {"2026-11"}
    assert sum(each.nano for each in november + december + january) == 80 * 10 + 7
