"""Closing a month in a process that is killed before each of its commits, on both databases, and then run again."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from galerne.billing.subscriptions import Order, subscribe
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from galerne.ledger import all_accounts, check_books
from tests.billing.invoices.customers import CLOSING, OCTOBER, House, house_in

ROOT = Path(__file__).parents[3]
MOST_COMMITS = 40


async def filled(url: str) -> None:
    database = Database(url)
    house = await house_in(database)
    owing, prepaid = await house.customer("owing"), await house.customer("prepaid")
    await house.use(owing, (123_456, 7, 7_891), (3_000_000, 0, 1_000_001))
    await house.grant(prepaid, 10**10)
    (name,) = await house.use(prepaid, (1_234_567, 0, 7))
    await house.settle(prepaid, {name: 1_234_567 * 400 + 7 * 1600})
    house.clock.current = OCTOBER
    async with database.transaction() as session:
        actor = replace(SYSTEM, organisation_id=owing)
        order = Order(plan_id="pro", interval="year", trial=False)
        await subscribe(session, actor, order, house.ids, house.clock)
    await database.close()


async def outcome(url: str) -> tuple[Any, ...]:
    database = Database(url)
    house = House(database, ManualClock(CLOSING), Ids())
    invoices = [
        (
            each.organisation_id,
            (each.number, each.state, each.issued_on, each.net_minor, each.tax_minor, each.due_minor),
            (each.usage_root, each.usage_size),
            await house.lines(each.id),
        )
        for each in await house.invoices()
    ]
    async with database.reading() as session:
        assert await check_books(session) == []
        books = {each.account.id: each.credit_nano for each in await all_accounts(session)}
    await database.close()
    return sorted(invoices, key=lambda each: each[:2]), books


def copier(url: str, folder: Path) -> Callable[[int], str]:
    place = make_url(url)

    def sqlite(number: int) -> str:
        copy = folder / f"copy-{number}.db"
        shutil.copy(str(place.database), copy)
        return f"sqlite+aiosqlite:///{copy}"

    def postgresql(number: int) -> str:
        name = f"{place.database}_killed_{number}"
        asyncio.run(_copied(place.set(drivername="postgresql", database="postgres"), str(place.database), name))
        return place.set(database=name).render_as_string(hide_password=False)

    return sqlite if place.get_backend_name() == "sqlite" else postgresql


async def _copied(server: Any, source: str, name: str) -> None:
    connection: Any = await asyncpg.connect(  # pyright: ignore[reportUnknownMemberType]  # without types
        server.render_as_string(hide_password=False)
    )
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {source} STRATEGY file_copy")
    finally:
        await connection.close()


@pytest.mark.timeout(240)  # some thirty processes, one after the other, and a database for each point of death
def test_killed_before_any_commit_and_run_again_it_gives_the_same_numbers_and_amounts(
    database_url: str, tmp_path: Path
) -> None:
    asyncio.run(filled(database_url))
    copy = copier(database_url, tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    closer = subprocess.Popen(
        [sys.executable, "-m", "tests.billing.invoices.killed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    with closer:
        assert closer.stdin is not None
        assert closer.stdout is not None

        def close(url: str, last: int) -> int:
            print(url, last, file=closer.stdin, flush=True)
            return int(closer.stdout.readline())  # type: ignore[union-attr]  # asserted above

        undisturbed = copy(0)
        assert close(undisturbed, 0) == 0
        wanted = asyncio.run(outcome(undisturbed))
        assert [each[1][:2] for each in wanted[0]] == [("FR-2026-000001", "final"), (None, "empty")]
        killed = 0
        for last in range(1, MOST_COMMITS):
            url = copy(last)
            ended = close(url, last)
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            killed += 1
            assert close(url, 0) == 0
            assert asyncio.run(outcome(url)) == wanted, f"killed before commit {last}"
        assert 10 <= killed < MOST_COMMITS - 1
