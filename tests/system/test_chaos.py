"""Whatever is killed, and whenever, every delivered token is metered and paid exactly once."""

import random
from pathlib import Path

import pytest

from tests.system.chaos import Plan, run

KILLS = 16


@pytest.mark.slow_ok("kills under load, each with the time that a gateway or a database takes to start again")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("postgresql", [True, False], ids=["postgresql", "sqlite"])
async def test_kill_9_at_random_points_loses_no_token_and_no_money(tmp_path: Path, postgresql: bool) -> None:
    plan = Plan(KILLS if postgresql else KILLS // 3, random.randrange(10**6), postgresql)
    outcome = await run(plan, tmp_path)
    assert outcome.problems == [], outcome
    assert outcome.tokens > 0
    assert sum(outcome.kills.values()) >= plan.kills
