"""Many processes at one ledger: nobody overspends, nothing is left pending, nobody waits in a circle."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy import make_url

from galerne.kernel import Database, Insert, Script, Writer, open_writer
from galerne.ledger import (
    AccountKind,
    Granted,
    NewHold,
    Settlement,
    customer_account,
    expired_script,
    hold_script,
    lock_accounts_script,
    release_script,
    renew_script,
    settle_script,
)
from galerne.ledger.tables import TransferRow
from tests.ledger.ledgers import NOON, PREPAID, REVENUE, fund_through, problems, settlement, sums, wish

PRICE = 7
CUSTOMERS = [customer_account(AccountKind.PREPAID, f"org-{number:02}", "EUR") for number in range(8)]


async def close(*writers: Writer) -> None:
    for writer in writers:
        await writer.close()


@pytest.mark.timeout(60)  # eight connections queue for one disk
async def test_200_wishes_at_once_for_a_balance_of_50_are_granted_50_times(
    database: Database, database_url: str
) -> None:
    writers = [open_writer(make_url(database_url)) for _ in range(8)]
    await fund_through(writers[0], 50 * PRICE, PREPAID)

    async def take(writer: Writer, numbers: Sequence[int]) -> list[Granted]:
        answers: list[Any] = []
        for start in range(0, len(numbers), 5):
            holds = [hold_script(wish(PRICE, name=f"hold-{number}")) for number in numbers[start : start + 5]]
            answers += await writer.run(holds)
        return [answer for answer in answers if isinstance(answer, Granted)]

    shares = [range(first, 200, 8) for first in range(8)]
    granted = [each for share in await asyncio.gather(*map(take, writers, shares)) for each in share]
    assert len(granted) == 50
    assert await sums(database) == (0, 50 * PRICE, 50 * PRICE, 0)

    async def spend(writer: Writer, holds: Sequence[Granted]) -> None:
        for each in holds:
            part = settlement(f"r:{each.hold_id}", PRICE - 2, each.hold_id)
            await writer.run([settle_script([part]), release_script([each.hold_id], NOON)])

    await asyncio.gather(*map(spend, writers, [granted[first::8] for first in range(8)]))
    assert await sums(database) == (50 * (PRICE - 2), 0, 50 * PRICE, 0)
    assert await problems(database) == []
    await close(*writers)


def by_scripts(batch: Sequence[Settlement]) -> list[Script[Any]]:
    return [settle_script(batch)]


def by_a_statement(batch: Sequence[Settlement]) -> list[Script[Any]]:
    columns = ("id", "kind", "hold_id", "debit_account_id", "credit_account_id", "amount_nano", "at")

    def script() -> Script[None]:
        rows = [
            (each.id, "settle", each.hold_id, each.debit_account_id, each.credit_account_id, each.amount_nano, each.at)
            for each in batch
        ]
        yield Insert(cast(SqlTable, TransferRow.__table__), columns, rows)

    return [script()]


def by_many_scripts_that_lock_first(batch: Sequence[Settlement]) -> list[Script[Any]]:
    accounts = {each.debit_account_id for each in batch} | {REVENUE.id}
    return [lock_accounts_script(accounts), *(settle_script([each]) for each in batch)]


@pytest.mark.timeout(60)  # a deadlock is noticed after a second, and this looks for one a hundred times
@pytest.mark.parametrize("work", [by_scripts, by_a_statement, by_many_scripts_that_lock_first])
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_batches_over_the_same_accounts_in_any_order_never_wait_in_a_circle(
    database: Database, database_url: str, work: Callable[[Sequence[Settlement]], list[Script[Any]]]
) -> None:
    writers = [open_writer(make_url(database_url)) for _ in range(4)]
    await fund_through(writers[0], 1000, *CUSTOMERS)
    holds = [(f"hold-{each.id}", each.id, REVENUE.id, 1000, 1000, "g", 0, NOON) for each in CUSTOMERS]
    await writers[0].run([hold_script(NewHold(*hold)) for hold in holds])

    async def settle(writer: Writer, worker: int) -> None:
        seeded = random.Random(worker)
        for turn in range(25):
            batch = [
                settlement(f"{worker}:{turn}:{each.id}", 1, f"hold-{each.id}", debit_account_id=each.id)
                for each in CUSTOMERS
            ]
            seeded.shuffle(batch)
            await writer.run(work(batch))

    await asyncio.gather(*(settle(writer, worker) for worker, writer in enumerate(writers)))
    assert [await sums(database, each) for each in CUSTOMERS] == [(100, 900, 1000, 0)] * len(CUSTOMERS)
    assert await problems(database) == []
    await close(*writers)


@pytest.mark.timeout(60)  # as above
async def test_recovery_and_the_holder_agree_on_who_has_an_expired_hold(database: Database, database_url: str) -> None:
    holder, *recoverers = [open_writer(make_url(database_url)) for _ in range(3)]
    await fund_through(holder, 1000, PREPAID)
    names = [f"hold-{number:02}" for number in range(20)]
    await holder.run([hold_script(wish(10, name=name, expires_at_ms=5)) for name in names])

    async def recover(writer: Writer) -> int:
        found = 0
        for _ in range(10):
            (released,) = await writer.run([_recovery()])
            found += len(released)
        return found

    async def renew() -> int:
        kept = 0
        for name in reversed(names):
            (still,) = await holder.run([renew_script([name], 10)])
            kept += len(still)
        return kept

    kept, *found = await asyncio.gather(renew(), *map(recover, recoverers))
    assert kept + sum(found) == 20
    assert (await sums(database))[1] == kept * 10
    assert await problems(database) == []
    await close(holder, *recoverers)


def _recovery() -> Script[Any]:
    found = yield from expired_script(5, 2)
    return (yield from release_script([each.id for each in found], NOON))
