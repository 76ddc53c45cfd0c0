"""Ledger, rating and invoices in lockstep with a naive model of all three, every step compared, on both databases."""

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.billing.lockstep.bill_rules import BillRules
from tests.billing.lockstep.world import world_in

EXAMPLES = {"sqlite": 5, "postgresql": 3}
TIMES = int(os.environ.get("LOCKSTEP_TIMES", "1"))  # as many times more examples, for a long run
SHRINKING_S = 300  # as long Hypothesis goes on with what it found


# A second or two an example, hundreds of transactions; the limit is for a machine that is busy with much else.
@pytest.mark.timeout(2 * SHRINKING_S + 300 * TIMES)
@pytest.mark.usefixtures("notice")
def test_money_is_what_a_naive_model_says(database_url: str, tmp_path: Path) -> None:
    examples = TIMES * EXAMPLES["sqlite" if database_url.startswith("sqlite") else "postgresql"]
    with asyncio.Runner() as runner:
        world = world_in(runner, database_url, tmp_path)
        run_state_machine_as_test(
            cast(Any, lambda: BillRules(world)),
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]  # the enum's own members
            ),
        )
