"""Rating in the database beside a few lines of plain Python: late use, corrections, prices, closed months."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from galerne.billing import (
    Counts,
    NewRates,
    buckets_in,
    close_period,
    correct_usage,
    rate_batch,
    rating_counts,
    set_rates,
    usage_lines,
)
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from galerne.metering import record
from galerne.models import ExternalModel, add_external
from tests.billing.test_rating_in_the_database import event
from tests.identity.tenants import NOW

MONTHS = ["2026-11", "2026-12", "2027-01", "2027-02"]
tokens = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
prices = st.tuples(*(st.integers(0, 5_000_000) for _ in range(3)))


class Lockstep(RuleBasedStateMachine):
    template: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        path = self.folder / "lockstep.db"
        shutil.copy(self.template, path)
        self.loop = asyncio.new_event_loop()
        self.database, self.clock = Database(f"sqlite+aiosqlite:///{path}"), ManualClock(NOW)
        self.events: dict[str, tuple[str, datetime]] = {}
        self.tokens: dict[str, tuple[int, int, int]] = {}
        self.states: dict[str, str] = {}
        self.costs: dict[str, int] = {}
        self.prices: list[tuple[str, datetime, tuple[int, int, int]]] = []
        self.billed: Counter[str] = Counter()
        self.closed = 0
        for name in ("large", "small"):
            self.act(
                lambda s, name=name: add_external(
                    s, SYSTEM, ExternalModel(name=name, url="http://127.0.0.1:9/v1"), self.clock
                )
            )

    def act(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            async with self.database.transaction() as session:
                return await work(session)

        return self.loop.run_until_complete(run())

    def cost(self, name: str) -> int | None:
        model, at = self.events[name]
        known = [price for priced, begin, price in self.prices if priced == model and begin <= at]
        if not known:
            return None
        return round(sum(Fraction(n * nano, 10**6) for n, nano in zip(self.tokens[name], known[-1], strict=True)))

    def bill(self, name: str, state: str, cost: int) -> None:
        month = max(MONTHS.index(f"{self.events[name][1]:%Y-%m}"), self.closed)
        self.billed[MONTHS[month]] += cost - self.costs.get(name, 0)
        self.costs[name], self.states[name] = cost, state

    @rule(model=st.sampled_from(["large", "small"]), late=st.integers(0, 300), used=tokens)
    def use(self, model: str, late: int, used: tuple[int, int, int]) -> None:
        at = self.clock.current - timedelta(minutes=late)
        new = event(model, at, used)
        for _ in range(2):  # written again, it counts once
            self.act(lambda session: record(session, [new]))
        self.events[new.id], self.tokens[new.id] = (model, at), used

    @rule(model=st.sampled_from(["large", "small"]), price=prices)
    def change_prices(self, model: str, price: tuple[int, int, int]) -> None:
        self.clock.current += timedelta(minutes=301)
        new = NewRates(
            currency="EUR",
            input_nano_per_million=price[0],
            cached_nano_per_million=price[1],
            output_nano_per_million=price[2],
        )
        self.act(lambda session: set_rates(session, SYSTEM, model, new, Ids(), self.clock))
        self.prices.append((model, self.clock.current, price))
        self.clock.current += timedelta(minutes=1)

    @rule(limit=st.integers(1, 5))
    def rate(self, limit: int) -> None:
        after, more = "", True
        while more:
            batch = self.act(lambda session, after=after: rate_batch(session, self.clock, after, limit))
            after, more = batch.last_id, batch.more
        for name in self.events.keys() - self.states.keys():
            cost = self.cost(name)
            self.bill(name, "unmatched" if cost is None else "rated", cost or 0)

    @precondition(lambda self: {"rated", "voided"} & set(self.states.values()))
    @rule(data=st.data(), used=st.one_of(st.none(), tokens))
    def correct(self, data: st.DataObject, used: tuple[int, int, int] | None) -> None:
        name = data.draw(st.sampled_from(sorted(n for n, state in self.states.items() if state != "unmatched")))
        counts = None if used is None else Counts(*used)
        self.act(lambda session: correct_usage(session, SYSTEM, name, counts, "why", self.clock))
        self.tokens[name] = used or (0, 0, 0)
        self.bill(name, "voided" if used is None else "rated", 0 if used is None else self.cost(name) or 0)

    @precondition(lambda self: self.closed < 3)
    @rule()
    def close(self) -> None:
        self.act(lambda session: close_period(session, SYSTEM, MONTHS[self.closed], self.clock))
        self.closed += 1

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        counts = self.act(rating_counts)
        assert {state: n for state, n in counts.items() if n and state not in ("events", "waiting")} == Counter(
            self.states.values()
        )
        assert (counts["events"], counts["waiting"]) == (len(self.events), len(self.events) - len(self.states))
        for month in MONTHS:
            sums = self.act(lambda session, month=month: buckets_in(session, month))
            lines = self.act(lambda session, month=month: usage_lines(session, "org", month))
            assert sum(each.nano for each in sums.values()) == self.billed[month]
            assert sum(each.requests_nano for each in lines) == self.billed[month]
            assert all(each.nano == each.requests_nano + each.rounding_nano for each in lines)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.database.close())
        self.loop.close()


@pytest.mark.slow_ok("hundreds of transactions on a database of their own")
def test_rating_keeps_step_with_a_naive_model(sqlite_template: Path, tmp_path: Path) -> None:
    Lockstep.template, Lockstep.folder = sqlite_template, tmp_path
    run_state_machine_as_test(
        Lockstep,
        settings=settings(
            max_examples=20,
            stateful_step_count=12,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
