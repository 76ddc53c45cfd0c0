"""Settlement: commits that are shared and retried, files that stand in for a database that is away, nothing twice."""

import asyncio
import fcntl
import json
import sqlite3
from collections.abc import Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from galerne.gateway.commit import Commit, commit_script
from galerne.gateway.progress import Progress
from galerne.gateway.reservations import Answers, Orders
from galerne.gateway.settlement import Settled, Settlements, Waits
from galerne.gateway.unsettled import load_unsettled, save_unsettled
from galerne.governance import Actor
from galerne.governance.actors import ActorKind
from galerne.journal import Entry, read_all
from galerne.kernel import Conflict, Database, Ids, SystemClock, Unavailable, Writer, open_writer
from galerne.ledger import Posting, Settlement, hold_script, release_script
from galerne.metering import UsageEvent
from tests.gateway.installation import Installation
from tests.gateway.upstream import MockEngine
from tests.ledger.ledgers import NOON, PREPAID, REVENUE, fund, problems, run, settlement, sums, wish

CHAT = "/v1/chat/completions"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACTOR = Actor(ActorKind.API_KEY, "key", "org", None)
DOWN = [
    sqlite3.OperationalError("disk I/O error"),
    asyncpg.ConnectionDoesNotExistError("gone"),
    asyncpg.InterfaceError("closed"),
    asyncpg.ReadOnlySQLTransactionError("no"),
    OSError(),
    TimeoutError(),
    RuntimeError(),
]
WAITS = Waits((0.01,), 0.05, 60.0)


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "Who are you?"}], **more}


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("unsettled-*"))


def kept(folder: Path) -> list[str]:
    return [json.loads(line)["event"]["id"] for each in files(folder) for line in each.read_text().splitlines()]


def one(request_id: str, **changes: Any) -> Settled:
    event = UsageEvent(
        id=request_id,
        organisation_id="org",
        workspace_id=None,
        key_id="key",
        model="m",
        model_version="1",
        endpoint="chat.completions",
        dialect="openai",
        input_tokens=1,
        cached_tokens=0,
        output_tokens=1,
        estimated=False,
        streamed=False,
        partial=False,
        outcome="completed",
        finish_reason="stop",
        status=200,
        started_at=NOW,
        queue_ms=0.0,
        ttft_ms=None,
        total_ms=1.0,
        tier="standard",
        zone="on-prem",
    )
    entry = Entry(
        action="inference.completed",
        actor=ACTOR,
        resource="model:m@1",
        outcome="done",
        at=NOW,
        request_id=request_id,
        detail={"paid_nano": 30},
    )
    return Settled(replace(event, **changes), entry)


def paying(request_id: str, amount_nano: int = 30, hold: str = "hold-1") -> Settled:
    return replace(one(request_id), settlement=settlement(request_id, amount_nano, hold), cost_nano=amount_nano)


def numbered(count: int) -> list[Settled]:
    return [one(f"{number:032x}") for number in range(count)]


class FakeWriter:
    """Keeps what it was given; fails as often as told."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.down: Exception | None = None
        self.hung = asyncio.Event()
        self.hung.set()
        self.batches: list[list[str]] = []
        self.refuses: Callable[[Settled], Exception | None] = lambda _: None
        self.written: list[Settled] = []
        self.commits: list[Commit] = []

    async def write(self, commit: Commit) -> Answers:
        self.commits.append(commit)
        await asyncio.sleep(0.005)
        await self.hung.wait()
        if self.down is not None:
            raise self.down
        if self.failures:
            raise self.failures.pop(0)
        for each in commit.settled:
            refusal = self.refuses(each)
            if refusal is not None:
                raise refusal
        if commit.settled:
            self.batches.append([each.event.id for each in commit.settled])
            self.written += commit.settled
        return Answers()

    @property
    def ids(self) -> list[str]:
        return [each.event.id for each in self.written]


class FakeDesk:
    """Has orders and progress when told, and remembers what it heard."""

    def __init__(self) -> None:
        self.next: Orders | None = None
        self.next_progress: Sequence[Progress] = ()
        self.heard: list[str] = []
        self.outage = False
        self.sizes: list[int] = []

    def set_outage(self, outage: bool) -> None:
        self.outage = outage

    def progress(self) -> Sequence[Progress]:
        found, self.next_progress = self.next_progress, ()
        return found

    def committed(self, size: int, seconds: float) -> None:
        self.sizes.append(size)

    def orders(self) -> Orders | None:
        found, self.next = self.next, None
        return found

    def done(self, orders: Orders, answers: Answers) -> None:
        self.heard.append("done")

    def failed(self, orders: Orders) -> None:
        self.heard.append("failed")

    def end(self) -> Orders:
        return Orders(NOW, 0, 0)


class Bench:
    """A queue on a fake writer, and its parts."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        self.writer = FakeWriter()
        self.desk = FakeDesk()
        more.setdefault("waits", WAITS)
        self.queue = Settlements(self.writer.write, self.desk, SystemClock(), folder, **more)
        self.queue.start()

    async def settle_all(self, ones: Sequence[Settled]) -> list[str]:
        """What each was told: "" if it is durable, else the error's code."""
        found = await asyncio.gather(*(self.queue.settle(each) for each in ones), return_exceptions=True)
        return [
            each.code if isinstance(each, Unavailable) else "" if isinstance(each, Settled) else str(each)
            for each in found
        ]


def settling_on(writer: Writer, folder: Path, desk: FakeDesk | None = None, waits: Waits | None = None) -> Settlements:
    async def write(commit: Commit) -> Answers:
        return (await writer.run([commit_script(commit)]))[0]

    return Settlements(write, desk or FakeDesk(), SystemClock(), folder, waits=WAITS if waits is None else waits)


async def test_all_who_wait_share_a_commit(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await asyncio.gather(*(bench.queue.settle(each) for each in numbered(100)))
    await bench.queue.stop()
    assert bench.writer.ids == [each.event.id for each in numbered(100)]
    assert len(bench.writer.batches) <= 2
    assert sum(bench.desk.sizes) == 100
    assert files(tmp_path) == []


async def test_a_wish_that_cannot_be_put_does_not_end_the_settling_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)

    def cannot() -> Orders | None:
        raise ValueError("no such wish")

    monkeypatch.setattr(bench.desk, "orders", cannot)
    async with asyncio.timeout(3):
        assert await bench.settle_all(numbered(3)) == [""] * 3
    await bench.queue.stop()


async def test_what_is_set_aside_holds_no_money_back(tmp_path: Path) -> None:
    bench, heard = Bench(tmp_path), asyncio.Event()
    bench.writer.refuses = lambda each: ValueError("no")
    with pytest.raises(Unavailable):
        await bench.queue.settle(paying("1" * 32), heard.set)
    assert heard.is_set()
    await bench.queue.stop()


async def test_one_that_cannot_be_written_does_not_take_down_its_neighbours(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.writer.refuses = lambda each: ValueError("no") if each.event.id == "1" * 32 else None
    found = await bench.settle_all([one(str(number) * 32) for number in range(4)])
    await bench.queue.stop()
    assert found[0] == found[2] == found[3] == ""
    assert bench.writer.ids == ["0" * 32, "2" * 32, "3" * 32]
    assert "1" * 32 in kept(tmp_path)
    assert not bench.queue.failing


async def test_what_is_tried_in_another_way_keeps_its_place_and_its_neighbours_theirs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, waits=Waits((0.01,), 5.0, 60.0))
    bench.writer.refuses = lambda each: ValueError("gone") if each.settlement is not None else None
    ones = [one("0" * 32), paying("1" * 32), one("2" * 32), paying("3" * 32), one("4" * 32)]
    async with asyncio.timeout(3):
        assert await bench.settle_all(ones) == [""] * 5
    await bench.queue.stop()
    assert bench.writer.ids == [each.event.id for each in ones], "in order, each once"
    assert [each.posting is not None for each in bench.writer.written] == [False, True, False, True, False]


async def test_a_request_is_not_blamed_for_orders_or_progress_that_share_its_commit(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    write = bench.writer.write

    async def refuse_orders(commit: Commit) -> Answers:
        if commit.progress or (commit.orders is not None and commit.orders.now_ms):
            raise ValueError("these orders are bad")
        return await write(commit)

    bench.queue._write = refuse_orders
    bench.desk.next = Orders(NOW, 1, 1)
    await bench.queue.settle(paying("1" * 32))
    bench.desk.next, bench.desk.next_progress = Orders(NOW, 0, 0), [Progress("x", "h", None, (1, 0, 1))]
    await bench.queue.settle(paying("2" * 32))
    await bench.queue.stop()
    assert bench.desk.heard == ["failed", "failed"]
    assert [each.settlement is not None for each in bench.writer.written] == [True, True]


async def test_orders_alone_that_cannot_be_carried_out_are_told_and_hold_up_nobody(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    bench = Bench(tmp_path)
    bench.writer.failures = [ValueError("these orders are bad")]
    bench.desk.next = Orders(NOW, 1, 1)
    bench.queue.wake()
    await until(lambda: bench.desk.heard == ["failed"])
    await bench.queue.settle(one("1" * 32))
    await bench.queue.stop()
    assert bench.writer.ids == ["1" * 32]
    assert "orders_refused" in [line["event"] for line in logs]


async def test_stopping_writes_what_waits_even_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    waiting = [asyncio.create_task(bench.queue.settle(each)) for each in numbered(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await bench.queue.stop()
    assert bench.writer.ids == [each.event.id for each in numbered(3)]


async def test_a_full_queue_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, capacity=2)
    waiting = [asyncio.create_task(bench.queue.settle(each)) for each in numbered(2)]
    await asyncio.sleep(0)
    assert bench.queue.full
    await asyncio.gather(*waiting)
    assert not bench.queue.full
    await bench.queue.stop()


@pytest.mark.parametrize("failure", DOWN, ids=repr)
async def test_a_short_outage_is_noticed_by_nobody(tmp_path: Path, failure: Exception) -> None:
    bench = Bench(tmp_path, waits=Waits((0.01,), 5.0, 60.0))
    bench.writer.failures = [failure]
    await bench.queue.settle(one("a" * 32))
    await bench.queue.stop()
    assert bench.writer.ids == ["a" * 32]
    assert files(tmp_path) == []


@pytest.mark.parametrize("failure", DOWN, ids=repr)
async def test_in_an_outage_requests_go_on_from_a_file_and_all_is_written_in_order_when_it_ends(
    tmp_path: Path, failure: Exception
) -> None:
    bench = Bench(tmp_path)
    bench.writer.down = failure
    assert await bench.settle_all(numbered(5)) == [""] * 5
    assert kept(tmp_path) == [each.event.id for each in numbered(5)]
    assert all(each.stat().st_mode & 0o077 == 0 for each in files(tmp_path))
    await until(lambda: bench.queue.failing and bench.desk.outage)
    assert await bench.settle_all([one("e" * 32)]) == [""]
    assert not bench.queue.refusing
    bench.writer.down = None
    await bench.queue.settle(one("f" * 32))
    await until(lambda: not len(bench.queue))
    assert not bench.queue.failing
    assert not bench.desk.outage
    await until(lambda: files(tmp_path) == [])  # a file goes once all in it is written
    await bench.queue.stop()
    assert bench.writer.ids == [each.event.id for each in numbered(5)] + ["e" * 32, "f" * 32]


async def test_new_requests_are_refused_only_when_the_outage_lasts(tmp_path: Path) -> None:
    bench = Bench(tmp_path, waits=Waits((0.01,), 0.05, 0.3))
    bench.writer.down = OSError()
    await bench.queue.settle(one("a" * 32))
    await until(lambda: bench.queue.failing)
    assert not bench.queue.refusing
    await until(lambda: bench.queue.refusing)
    assert await bench.settle_all([one("b" * 32)]) == [""], "what was admitted is settled all the same"
    bench.writer.down = None
    await until(lambda: not bench.queue.refusing)
    await bench.queue.stop()
    assert bench.writer.ids == ["a" * 32, "b" * 32]


async def test_a_database_that_hangs_keeps_nobody_waiting_longer_than_patience(tmp_path: Path) -> None:
    bench = Bench(tmp_path, waits=Waits((0.01,), 0.2, 60.0))
    bench.writer.hung.clear()
    began_s = asyncio.get_running_loop().time()
    assert await bench.settle_all(numbered(3)) == [""] * 3
    assert 0.15 < asyncio.get_running_loop().time() - began_s < 10
    assert len(kept(tmp_path)) == 3
    bench.writer.hung.set()
    await until(lambda: files(tmp_path) == [])
    await bench.queue.stop()
    assert bench.writer.ids == [each.event.id for each in numbered(3)]


async def test_a_slow_write_is_no_outage(tmp_path: Path) -> None:
    bench = Bench(tmp_path, waits=Waits((0.01,), 5.0, 60.0))
    write = bench.writer.write

    async def slow(commit: Commit) -> Answers:
        await asyncio.sleep(0.2)
        return await write(commit)

    bench.queue._write = slow
    await bench.queue.settle(one("a" * 32))
    assert not bench.queue.failing
    assert files(tmp_path) == []
    await bench.queue.stop()


async def test_only_when_neither_database_nor_file_takes_it_is_the_caller_told(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    folder = tmp_path / "data"
    folder.write_text("not a folder")
    bench = Bench(folder)
    bench.writer.down = OSError()
    assert await bench.settle_all(numbered(2)) == ["settlement_failed"] * 2
    assert {line["event"] for line in logs} >= {"settlement_failing", "settlement_lost"}
    bench.writer.down = None
    await until(lambda: not len(bench.queue))
    await bench.queue.stop()
    assert len(bench.writer.ids) == 2, "used is used, and is written once the database is back"


async def test_what_a_working_database_refuses_is_set_aside_in_a_file_and_holds_up_nobody(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    bench = Bench(tmp_path, waits=Waits((0.01,), 5.0, 60.0))
    bench.writer.refuses = lambda each: ValueError("no") if each.event.id == "1" * 32 else None
    assert await bench.settle_all([one("1" * 32)]) == ["settlement_failed"]
    assert not bench.queue.failing
    await bench.queue.settle(one("2" * 32))
    await bench.queue.stop()
    assert kept(tmp_path) == ["1" * 32]
    assert "settlement_refused" in {line["event"] for line in logs}


async def test_what_was_recorded_by_whoever_took_us_for_dead_is_superseded_and_not_tried_for_ever(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    bench = Bench(tmp_path)
    bench.writer.refuses = lambda each: Conflict("other content") if each.event.id == "1" * 32 else None
    written: list[str] = []
    ones = [one("1" * 32), one("2" * 32)]
    await asyncio.gather(*(bench.queue.settle(each, lambda name=each.event.id: written.append(name)) for each in ones))
    await bench.queue.stop()
    assert (bench.writer.ids, sorted(written)) == (["2" * 32], ["1" * 32, "2" * 32])
    assert "settlement_superseded" in {line["event"] for line in logs}
    assert files(tmp_path) == []


async def test_a_file_that_cannot_be_read_whole_stays_and_what_can_be_is_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.writer.down = OSError()
    await bench.queue.settle(one("a" * 32))
    await bench.queue.stop(settle_s=0.1)
    bench.queue.start()
    await bench.queue.stop(settle_s=0.1)
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes() + b'{"event": "torn')
    bench.writer.down = None
    bench.queue.start()
    await bench.queue.stop()
    assert bench.writer.ids == ["a" * 32]
    assert files(tmp_path) == [file]


async def test_a_stop_in_an_outage_leaves_one_file_line_for_each_request(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    bench = Bench(tmp_path, waits=Waits((5.0,), 5.0, 60.0))
    bench.writer.down = OSError()
    waiting = asyncio.gather(*(bench.queue.settle(each) for each in numbered(4)))
    await asyncio.sleep(0.05)
    await bench.queue.stop(settle_s=0.1)
    await waiting
    assert kept(tmp_path) == [each.event.id for each in numbered(4)]
    assert [line["requests"] for line in logs if line["event"] == "settlement_unwritten"] == [4]


async def test_an_errand_is_run_between_commits_and_its_failure_is_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.writer.failures = [OSError("gone")]
    with pytest.raises(OSError, match="gone"):
        await bench.queue.run(lambda: commit_script(Commit()))
    await bench.queue.settle(one("a" * 32))
    await bench.queue.stop()
    assert (bench.writer.ids, bench.queue.failing) == (["a" * 32], False)


async def test_what_a_stop_leaves_unwritten_is_written_once_by_the_next_start(
    database: Database, tmp_path: Path, ids: Ids
) -> None:
    requests = [one(ids.new()) for _ in range(3)]
    writer = open_writer(database.url)
    await writer.run([commit_script(Commit(requests[:1]))])  # as if only its confirmation had been lost
    bench = Bench(tmp_path)
    bench.writer.down = OSError()
    await bench.settle_all(requests)
    await bench.queue.stop(settle_s=0.1)
    for _ in range(2):
        again = settling_on(writer, tmp_path)
        again.start()
        await until(lambda: files(tmp_path) == [])
        await again.stop()
        assert await counts(database) == (3, 3)
    await writer.run([commit_script(Commit(requests))])  # the same to the last digit, or this would be a conflict
    assert await counts(database) == (3, 3)
    await writer.close()


async def test_usage_payment_and_journal_are_written_in_one_transaction_or_not_at_all(
    database: Database, ids: Ids
) -> None:
    await fund(database, 1000)
    await run(database, hold_script(wish(500)))
    writer = open_writer(database.url)
    good = [paying(ids.new()) for _ in range(3)]
    for batch in ([*good, good[0]], [*good[:2], *good[:2]]):
        await writer.run([commit_script(Commit(batch))])
        assert await counts(database) == (3, 3)
        assert await sums(database) == (90, 410, 1000, 0)
    twisted = replace(good[0], event=replace(good[0].event, output_tokens=9))
    with pytest.raises(Conflict, match="already recorded"):
        await writer.run([commit_script(Commit([paying(ids.new()), twisted]))])
    with pytest.raises((sqlite3.Error, asyncpg.PostgresError)):
        await writer.run([commit_script(Commit([paying(ids.new()), paying(ids.new(), 400)]))])
    assert await counts(database) == (3, 3)
    assert (await sums(database), await problems(database)) == ((90, 410, 1000, 0), [])
    await writer.close()


async def test_who_ran_on_a_hold_that_is_gone_pays_from_the_account_and_who_cannot_is_written_unpaid(
    database: Database, tmp_path: Path, ids: Ids, logs: list[MutableMapping[str, Any]]
) -> None:
    await fund(database, 1000)
    await run(database, hold_script(wish(500)))
    await run(database, release_script(["hold-1"], NOON))
    await run(database, hold_script(wish(900, name="hold-2")))
    writer = open_writer(database.url)
    queue = settling_on(writer, tmp_path, waits=Waits((0.01,), patience_s=8.0))
    queue.start()
    requests = [paying(ids.new(), 60), one(ids.new()), paying(ids.new(), 70), paying(ids.new(), 5, "hold-2")]
    stood = await asyncio.gather(*(queue.settle(each) for each in requests))
    assert [each.charged_nano for each in stood] == [60, 0, 0, 5], "who settles hears what the ledger took"
    await until(lambda: not len(queue))
    await queue.stop()
    assert await counts(database) == (4, 4)
    assert (await sums(database), await problems(database)) == ((65, 895, 1000, 0), [])
    assert [line["request_id"] for line in logs if line["event"] == "settlement_without_hold"] == [
        requests[0].event.id,
        requests[2].event.id,
        requests[2].event.id,
    ]
    async with database.reading() as session:
        leaves = await read_all(session)
    assert {leaf.request_id: leaf.detail["paid_nano"] for leaf in leaves} == {
        requests[0].event.id: 30,
        requests[1].event.id: 30,
        requests[2].event.id: 0,
        requests[3].event.id: 30,
    }
    assert [leaf.detail["unpaid_nano"] for leaf in leaves if "unpaid_nano" in leaf.detail] == [70]
    assert files(tmp_path) == []
    await writer.close()


def test_what_is_kept_in_a_file_is_what_comes_out_of_it(tmp_path: Path) -> None:
    posting = Posting("p", PREPAID.id, REVENUE.id, 7, NOON, "the hold was gone")
    paid = Settlement("q", "hold-1", PREPAID.id, REVENUE.id, 2**53 + 1, NOON)
    ones = [
        one("a" * 32, ttft_ms=0.1 + 0.2, workspace_id="w"),
        replace(one("b" * 32), posting=posting, cost_nano=7),
        replace(one("c" * 32), settlement=paid, spent={"lease": 3}, cost_nano=2**53 + 1),
    ]
    save_unsettled(tmp_path, ones, NOW)
    found = [each for each, _ in load_unsettled(tmp_path)]
    assert [replace(each, entry=before.entry) for each, before in zip(found, ones, strict=True)] == ones
    for each, before in zip(found, ones, strict=True):
        actor = each.entry.actor
        assert Actor(ActorKind(actor.kind), actor.id, actor.organisation_id, actor.workspace_id) == ACTOR
        assert replace(each.entry, actor=before.entry.actor) == before.entry


def test_what_a_process_was_writing_when_it_died_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    dead, living = tmp_path / "unsettled-1.part", tmp_path / "unsettled-2.part"
    dead.write_bytes(b'{"half')
    with living.open("wb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        assert load_unsettled(tmp_path) == []
        assert (dead.exists(), living.exists()) == (False, True)


async def test_while_use_cannot_be_recorded_requests_succeed_and_afterwards_nothing_is_missing(
    gateway_on_both: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, queue = gateway_on_both, gateway_on_both.gateway._settlements
    write, down = queue._write, True

    async def fail(commit: Commit) -> Answers:
        if down and commit.settled:
            raise OSError("the disk is gone")
        return await write(commit)

    monkeypatch.setattr(queue, "_write", fail)
    found = await asyncio.gather(*(gateway.post(CHAT, body("normal")) for _ in range(27)))
    assert {status for status, _, _ in found} == {200}
    assert gateway.gateway.settlement_failing
    assert await gateway.usage() == []
    down = False
    await until(lambda: not gateway.gateway.settlement_failing)
    assert len(await gateway.settled(27)) == 27
    assert (await gateway.post(CHAT, body("normal")))[0] == 200
    assert len(await gateway.journal()) == 28


async def counts(database: Database) -> tuple[int, int]:
    async with database.reading() as session:
        connection = await session.connection()
        usage = (await connection.exec_driver_sql("SELECT count(*) FROM usage_events")).scalar_one()
        leaves = (await connection.exec_driver_sql("SELECT count(*) FROM journal_leaves")).scalar_one()
    return usage, leaves
