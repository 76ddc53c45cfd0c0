"""Processes that died: their streams are settled as delivered, once, whoever finds them; what they held is freed."""

import asyncio
import fcntl
import shutil
from collections.abc import AsyncGenerator, Callable, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from galerne.billing import Rates
from galerne.gateway.commit import Commit, commit_script
from galerne.gateway.flights import FlightFile
from galerne.gateway.progress import Progress, alive_script, progress_script
from galerne.gateway.recovery import recover_script, recovered_flights
from galerne.gateway.reservations import Answers, Orders
from galerne.gateway.settled import Flight, Payment, Settled, recovered
from galerne.gateway.settlement import Settlements, Waits
from galerne.gateway.wire.answer import TokenCount
from galerne.journal import StoredLeaf, read_all, verify
from galerne.kernel import Database, Script, SystemClock, Writer, open_writer
from galerne.ledger import hold_script, release_script
from galerne.metering import PoolSpec, Take
from tests.gateway.flying import flight
from tests.ledger.ledgers import NOON, NOON_MS, PREPAID, REVENUE, fund, problems, read, run, sums, wish
from tests.metering.takes import take_script

RATES = Rates(
    model_id="m",
    currency="EUR",
    effective_from=NOON,
    input_nano_per_million=2_000_000,
    cached_nano_per_million=1_000_000,
    output_nano_per_million=6_000_000,
)
DAILY = PoolSpec("rule-1:key", "tokens", "day", 100_000)
A, B, C, DONE, LOST, TORN = (digit * 32 for digit in "abcdef")
LATER = NOON + timedelta(minutes=5)
LATER_MS = NOON_MS + 300_000


class IdleDesk:
    """Has nothing to add to a commit."""

    def set_outage(self, outage: bool) -> None: ...
    def progress(self) -> tuple[Progress, ...]:
        return ()

    def committed(self, size: int, seconds: float) -> None: ...
    def orders(self) -> Orders | None:
        return None

    def done(self, orders: Orders, answers: Answers) -> None: ...
    def failed(self, orders: Orders) -> None: ...
    def end(self) -> Orders:
        return Orders(NOON, NOON_MS, NOON_MS)


@dataclass
class Books:
    """A database with an account of 1000, and what tests ask of it."""

    database: Database
    writer: Writer

    async def run(self, script: Script[Any]) -> Any:
        return (await self.writer.run([script]))[0]

    async def usage(self) -> dict[str, tuple[int, int, int, str]]:
        rows = await read(
            self.database, "SELECT id, input_tokens, cached_tokens, output_tokens, outcome FROM usage_events"
        )
        return {row[0]: tuple(row[1:]) for row in rows}

    async def journal(self) -> list[StoredLeaf]:
        async with self.database.reading() as session:
            assert (await verify(session)).problem is None
            return list(reversed(await read_all(session)))

    async def left(self) -> tuple[int, ...]:
        """How many rows of progress, processes, leases and open holds there are."""
        counts = [
            await read(self.database, f"SELECT count(*) FROM {table}")
            for table in ("gateway_progress", "gateway_processes", "limit_leases", "ledger_holds WHERE NOT closed")
        ]
        return tuple(rows[0][0] for rows in counts)

    async def restart(self, folder: Path) -> None:
        """What a start does with the files of the dead."""

        async def write(commit: Commit) -> Answers:
            return await self.run(commit_script(commit))

        queue = Settlements(write, IdleDesk(), SystemClock(), folder, waits=Waits((0.01,), 5.0))
        queue.start(recovered_flights(folder, LATER))
        await until(lambda: not len(queue))
        await queue.stop()
        assert not any(folder.iterdir())  # noqa: ASYNC240 - a test waits for its disk


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


@pytest.fixture
async def books(database: Database) -> AsyncGenerator[Books]:
    await fund(database, 1000)
    await run(database, hold_script(wish(700, holder="dead")))
    writer = open_writer(database.url)
    yield Books(database, writer)
    await writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def paying(request_id: str, **changes: Any) -> Flight:
    terms: dict[str, Any] = {"rates": RATES, "payment": Payment("hold-1", PREPAID.id, REVENUE.id, 300)}
    return msgspec.structs.replace(flight(request_id), **(terms | changes))


def abandoned(folder: Path, counts: dict[str, TokenCount]) -> Path:
    file = FlightFile(folder, "dead")
    for request_id, count in counts.items():
        file.begin(paying(request_id), 0.0).deliver(count)
    fcntl.flock(file._descriptor, fcntl.LOCK_UN)  # as the death of its process does
    return file.path


def reported(request_id: str, counts: tuple[int, int, int], holder: str = "dead", **changes: Any) -> Progress:
    return Progress(request_id, holder, msgspec.json.encode(paying(request_id, **changes)).decode(), counts)


async def lease(books: Books, holder: str, expires_at_ms: int) -> str:
    taken = await books.run(
        take_script(
            Take(pool=DAILY, holder=holder, least=100, need=100, most=1000, expires_at_ms=expires_at_ms), NOON_MS
        )
    )
    return str(taken.lease_id)


async def test_a_start_settles_each_stream_of_a_dead_process_as_delivered_and_twice_is_once(
    books: Books, folder: Path, tmp_path: Path
) -> None:
    file = abandoned(folder, {A: TokenCount(10, 5, 20), B: TokenCount(0, 0, 0), C: TokenCount(10, 0, 1, True)})
    shutil.copy(file, tmp_path / "kept")
    await books.restart(folder)
    shutil.copy(tmp_path / "kept", folder / file.name)
    await books.restart(folder)
    assert await books.usage() == {A: (10, 5, 20, "failed"), B: (0, 0, 0, "failed"), C: (10, 0, 1, "failed")}
    assert sorted((leaf.request_id, leaf.action) for leaf in await books.journal()) == [
        (A, "inference.recovered"),
        (B, "inference.recovered"),
        (C, "inference.recovered"),
    ]
    owed = (2 * 10 + 5 + 6 * 20) + (2 * 10 + 6)
    assert await sums(books.database) == (owed, 700 - owed, 1000, 0)
    assert await problems(books.database) == []


async def test_a_silent_process_is_settled_from_its_progress_and_what_it_held_is_freed(books: Books) -> None:
    await books.run(alive_script("dead", NOON_MS))
    lease_id = await lease(books, "dead", NOON_MS + 60_000)
    found = [reported(A, (10, 0, 3), leases={lease_id: "tokens"}), reported(B, (7, 0, 0))]
    await books.run(progress_script(found))
    await books.run(progress_script([Progress(A, "dead", None, (0, 0, 4))]))
    assert await books.left() == (2, 1, 1, 1)
    assert await books.run(recover_script("ours", LATER, LATER_MS - 60_000)) == 3
    assert await books.left() == (0, 0, 0, 0)
    assert await books.usage() == {A: (10, 0, 7, "failed"), B: (7, 0, 0, "failed")}
    owed = 2 * 10 + 6 * 7 + 2 * 7
    assert await sums(books.database) == (owed, 0, 1000, 0)
    assert await problems(books.database) == []
    journal = await books.journal()
    assert sorted((leaf.action, leaf.resource) for leaf in journal) == [
        ("hold.reclaimed", "hold:hold-1"),
        ("inference.recovered", "model:m@1"),
        ("inference.recovered", "model:m@1"),
    ]
    assert [leaf.detail["left_nano"] for leaf in journal if leaf.action == "hold.reclaimed"] == [700 - owed]
    taken = await read(books.database, "SELECT taken FROM limit_pools")
    assert taken[0][0] == 10 + 7, "what it used stays counted, what it did not goes back"
    assert await books.run(recover_script("ours", LATER, LATER_MS - 60_000)) == 0
    assert len(await books.journal()) == 3


async def test_who_lives_is_left_alone_and_so_is_whoever_asks(books: Books) -> None:
    await books.run(hold_script(wish(100, name="hold-2", holder="ours", expires_at_ms=NOON_MS + 1)))
    await books.run(hold_script(wish(100, name="hold-3", holder="alive", expires_at_ms=LATER_MS + 1)))
    for holder, seen_ms in (("ours", NOON_MS), ("alive", LATER_MS - 1000)):
        await books.run(alive_script(holder, seen_ms))
        await books.run(progress_script([reported(f"of-{holder}", (1, 0, 1), holder)]))
    await lease(books, "alive", LATER_MS + 1)
    assert await books.run(recover_script("ours", LATER, LATER_MS - 60_000)) == 1, "the hold of the dead one"
    assert await books.left() == (2, 2, 1, 2)
    assert await books.usage() == {}


async def test_what_another_machine_recovered_first_stands_when_the_file_is_found(
    books: Books, folder: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    abandoned(folder, {A: TokenCount(10, 0, 9), B: TokenCount(10, 0, 5)})
    await books.run(alive_script("dead", NOON_MS))
    await books.run(progress_script([reported(A, (10, 0, 4))]))
    assert await books.run(recover_script("ours", LATER, LATER_MS - 60_000)) == 2
    await books.restart(folder)
    assert await books.usage() == {A: (10, 0, 4, "failed"), B: (10, 0, 5, "failed")}
    owed = (2 * 10 + 6 * 4) + (2 * 10 + 6 * 5)
    assert (await sums(books.database), await problems(books.database)) == ((owed, 0, 1000, 0), [])
    events = {line["event"]: line["request_id"] for line in logs if "request_id" in line}
    assert events == {"settlement_superseded": A, "settlement_without_hold": B}


async def test_what_is_settled_already_or_cannot_be_paid_or_read_stops_no_recovery(books: Books) -> None:
    await books.run(alive_script("dead", NOON_MS))
    settled = [recovered(paying(DONE), TokenCount(10, 0, 9), NOON)]
    await books.run(commit_script(Commit(settled)))
    lost = reported(LOST, (10, 0, 1), payment=Payment("hold-2", PREPAID.id, REVENUE.id, 300))
    await books.run(hold_script(wish(100, name="hold-2", holder="dead")))
    await books.run(release_script(["hold-2"], NOON))
    torn = Progress(TORN, "dead", "{", (1, 0, 1))
    await books.run(progress_script([reported(DONE, (10, 0, 4)), lost, torn, reported(A, (10, 0, 2))]))
    assert await books.run(recover_script("ours", LATER, LATER_MS - 60_000)) == 3
    assert await books.left() == (0, 0, 0, 0)
    assert await books.usage() == {
        DONE: (10, 0, 9, "failed"),
        LOST: (10, 0, 1, "failed"),
        A: (10, 0, 2, "failed"),
    }
    paid = (2 * 10 + 6 * 9) + (2 * 10 + 6 * 2)
    assert (await sums(books.database), await problems(books.database)) == ((paid, 0, 1000, 0), [])
    unpaid = [leaf.detail for leaf in await books.journal() if leaf.request_id == LOST]
    assert [(detail["paid_nano"], detail["unpaid_nano"]) for detail in unpaid] == [(0, 26)]


async def test_progress_told_again_after_a_commit_of_which_nobody_knows_counts_once(books: Books, folder: Path) -> None:
    file = FlightFile(folder, "dead")
    slot = file.begin(paying(A), 0.0)

    async def tell() -> None:
        progress = slot.progress("dead")
        if progress is not None:
            await books.run(progress_script([progress]))

    async def told() -> list[tuple[int, ...]]:
        rows = await read(books.database, "SELECT input_tokens, cached_tokens, output_tokens FROM gateway_progress")
        return [tuple(row) for row in rows]

    for output in (3, 5, 5, 8):
        slot.deliver(TokenCount(10, 4, output))
        await tell()
        assert await told() == [(10, 4, output)]
        if output > 3:
            slot.untold()
    slot.deliver(TokenCount(10, 4, 9))
    await tell()
    assert await told() == [(10, 4, 9)]
    slot.deliver(TokenCount(10, 4, 11))
    slot.land()
    slot.untold()
    assert slot.progress("dead") is None, "it is being settled"
    slot.end()
    file.close()


async def test_settling_a_stream_forgets_its_progress(books: Books) -> None:
    await books.run(progress_script([reported(A, (10, 0, 2)), reported(B, (10, 0, 2))]))
    end: Settled = recovered(paying(A), TokenCount(10, 0, 3), NOON)
    await books.run(commit_script(Commit([end], progress=[Progress(A, "dead", None, (0, 0, 1))])))
    assert [row[0] for row in await read(books.database, "SELECT request_id FROM gateway_progress")] == [B]
