"""Settlement: commits that are shared, retried until they succeed, and kept in a file when a stop comes first."""

import asyncio
import json
from collections.abc import Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from galerne.gateway.settlement import Settled, Settlements, Waits, settlement_writer
from galerne.governance import Actor
from galerne.governance.actors import ActorKind
from galerne.journal import Entry
from galerne.kernel import Database, Ids, SystemClock, Unavailable
from galerne.metering import UsageEvent
from tests.gateway.installation import Installation
from tests.gateway.upstream import MockEngine

CHAT = "/v1/chat/completions"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACTOR = Actor(ActorKind.API_KEY, "key", "org", None)
DOWN = [OperationalError("x", None, OSError()), OSError(), DBAPIError("x", None, OSError()), RuntimeError()]


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "Who are you?"}], **more}


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(700):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if "galerne.db" not in each.name)


def one(request_id: str) -> Settled:
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
    )
    entry = Entry(
        action="inference.completed", actor=ACTOR, resource="model:m@1", outcome="done", at=NOW, request_id=request_id
    )
    return Settled(event, entry)


class Writer:
    """Keeps what it was given; fails as often as told."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.down: Exception | None = None
        self.batches: list[list[str]] = []
        self.poison: str | None = None

    async def write(self, batch: Sequence[Settled]) -> None:
        await asyncio.sleep(0.005)
        if self.down is not None:
            raise self.down
        if self.failures:
            raise self.failures.pop(0)
        if any(each.event.id == self.poison for each in batch):
            raise ValueError("this one cannot be written")
        if batch:
            self.batches.append([each.event.id for each in batch])


Make = Callable[..., Settlements]


@pytest.fixture
def settlements(tmp_path: Path) -> Make:
    def make(writer: Writer, **more: Any) -> Settlements:
        return Settlements(writer.write, SystemClock(), tmp_path, waits=Waits((0.01,), 0.05), **more)

    return make


async def test_all_who_wait_share_a_commit(settlements: Make) -> None:
    writer = Writer()
    sizes: list[int] = []
    queue = settlements(writer, observe=lambda size, seconds: sizes.append(size))
    queue.start()
    await asyncio.gather(*(queue.settle(one(f"{number:032x}")) for number in range(100)))
    await queue.stop()
    assert sorted(each for batch in writer.batches for each in batch) == [f"{number:032x}" for number in range(100)]
    assert len(writer.batches) <= 2
    assert sum(sizes) == 100


async def test_one_that_cannot_be_written_does_not_take_down_its_neighbours(settlements: Make) -> None:
    writer = Writer()
    writer.poison = "1" * 32
    queue = settlements(writer)
    queue.start()
    found = await asyncio.gather(*(queue.settle(one(str(number) * 32)) for number in range(4)), return_exceptions=True)
    await queue.stop()
    assert [type(each) for each in found] == [type(None), Unavailable, type(None), type(None)]
    assert not queue.failing


async def test_stopping_writes_what_waits_even_when_nobody_waits_for_it_any_more(settlements: Make) -> None:
    writer = Writer()
    queue = settlements(writer)
    queue.start()
    waiting = [asyncio.create_task(queue.settle(one(str(number) * 32))) for number in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await queue.stop()
    assert sorted(each[0] for batch in writer.batches for each in batch) == ["0", "1", "2"]


async def test_a_full_queue_says_so(settlements: Make) -> None:
    queue = settlements(Writer(), capacity=2)
    queue.start()
    waiting = [asyncio.create_task(queue.settle(one(str(number) * 32))) for number in range(2)]
    await asyncio.sleep(0)
    assert queue.full
    await asyncio.gather(*waiting)
    assert not queue.full
    await queue.stop()


@pytest.mark.parametrize("failure", DOWN)
async def test_a_short_outage_is_not_noticed_by_those_who_wait(settlements: Make, failure: Exception) -> None:
    writer = Writer()
    queue = settlements(writer)
    queue.start()
    writer.failures = [failure]
    await queue.settle(one("a" * 32))
    await queue.stop()
    assert writer.batches == [["a" * 32]]


@pytest.mark.parametrize("failure", DOWN)
async def test_an_outage_is_told_to_those_who_wait_and_all_is_written_in_order_when_it_ends(
    settlements: Make, failure: Exception
) -> None:
    writer = Writer()
    queue = settlements(writer)
    queue.start()
    writer.down = failure
    requests = [one(f"{number:032x}") for number in range(5)]
    found = await asyncio.gather(*(queue.settle(each) for each in requests), return_exceptions=True)
    assert [each.code for each in found if isinstance(each, Unavailable)] == ["settlement_failed"] * 5
    await until(lambda: queue.failing)
    late = asyncio.create_task(queue.settle(one("f" * 32)))
    await asyncio.sleep(0)
    writer.down = None
    await late
    assert not queue.failing
    await queue.stop()
    assert [each for batch in writer.batches for each in batch] == [each.event.id for each in requests] + ["f" * 32]


async def test_a_database_that_answers_but_has_become_read_only_is_an_outage_too(
    settlements: Make, tmp_path: Path
) -> None:
    read_only, writer = True, Writer()

    async def write(batch: Sequence[Settled]) -> None:
        if batch and read_only:
            raise DBAPIError("x", None, asyncpg.ReadOnlySQLTransactionError("no"))
        await writer.write(batch)

    queue = settlements(writer)
    queue._write = write
    queue.start()
    with pytest.raises(Unavailable):
        await queue.settle(one("a" * 32))
    await until(lambda: queue.failing)
    read_only = False
    await queue.stop()
    assert (writer.batches, files(tmp_path)) == ([["a" * 32]], [])


async def test_a_slow_write_is_no_outage(settlements: Make) -> None:
    async def write(batch: Sequence[Settled]) -> None:
        await asyncio.sleep(0.2)

    queue = settlements(Writer())
    queue._write = write
    queue.start()
    await queue.settle(one("a" * 32))
    assert not queue.failing
    await queue.stop()


async def test_what_a_working_database_refuses_is_set_aside_in_a_file_and_holds_up_nobody(
    settlements: Make, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    writer = Writer()
    writer.poison = "1" * 32
    queue = settlements(writer)
    queue.start()
    with pytest.raises(Unavailable):
        await queue.settle(one(writer.poison))
    assert not queue.failing
    await queue.settle(one("2" * 32))
    await queue.stop()
    (kept,) = files(tmp_path)
    assert json.loads(kept.read_text())["event"]["id"] == writer.poison
    assert {line["event"] for line in logs} >= {"settlement_refused", "settlement_unwritten"}


async def test_what_a_stop_leaves_unwritten_is_written_once_by_the_next_start(
    database: Database, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    requests = [one(f"{number:032x}") for number in range(3)]
    await settlement_writer(database)(requests[:1])  # as if only its confirmation had been lost
    broken = Writer()
    broken.down = OSError()
    queue = Settlements(broken.write, SystemClock(), tmp_path, waits=Waits(patience_s=0.05))
    queue.start()
    await asyncio.gather(*(queue.settle(each) for each in requests), return_exceptions=True)
    await queue.stop(settle_s=0.3)
    (kept,) = files(tmp_path)
    assert kept.name.startswith("unsettled-")
    assert kept.stat().st_mode & 0o077 == 0
    assert [line["requests"] for line in logs if line["event"] == "settlement_unwritten"] == [3]
    again = Settlements(settlement_writer(database), SystemClock(), tmp_path)
    again.start()
    await until(lambda: not kept.exists())
    await again.stop()
    assert await _counts(database) == (3, 3)
    await settlement_writer(database)(requests)  # the same to the last digit, or this would be a conflict
    assert await _counts(database) == (3, 3)


async def test_a_file_that_cannot_be_settled_stays(settlements: Make, tmp_path: Path) -> None:
    writer = Writer()
    writer.down = OSError()
    queue = settlements(writer)
    queue.start()
    await asyncio.gather(queue.settle(one("a" * 32)), return_exceptions=True)
    await queue.stop(settle_s=0.1)
    queue.start()
    await queue.stop(settle_s=0.1)
    (kept,) = files(tmp_path)
    kept.write_bytes(kept.read_bytes() + b'{"event": "torn')
    writer.down = None
    queue.start()
    await queue.stop()
    assert writer.batches == [["a" * 32]]
    assert files(tmp_path) == [kept]


async def test_while_use_cannot_be_recorded_new_requests_are_refused_and_afterwards_nothing_is_missing(
    gateway_on_both: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, queue = gateway_on_both, gateway_on_both.gateway._settlements
    write, down = queue._write, True

    async def fail(batch: Sequence[Settled]) -> None:
        if down:
            raise OSError("the disk is gone")
        await write(batch)

    monkeypatch.setattr(queue, "_write", fail)
    found = await asyncio.gather(*(gateway.post(CHAT, body("normal")) for _ in range(27)))
    assert {(status, answer["code"]) for status, answer, _ in found} == {(503, "settlement_failed")}
    assert gateway.gateway.settlement_failing
    asked = len(engine.requests)
    status, _, headers = await gateway.post(CHAT, body("normal"))
    assert (status, headers["retry-after"], len(engine.requests)) == (503, "1", asked)
    down = False
    await until(lambda: not gateway.gateway.settlement_failing)
    assert len(await gateway.settled(27)) == 27
    assert (await gateway.post(CHAT, body("normal")))[0] == 200
    assert len(await gateway.journal()) == 28


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_postgresql_that_takes_no_connections_for_a_while_loses_no_use(
    gateway_on_both: Installation, engine: MockEngine, database: Database
) -> None:
    gateway, name = gateway_on_both, database.url.database
    engine.tokens = 20
    assert (await gateway.post(CHAT, body("normal")))[0] == 200
    working = [asyncio.create_task(gateway.events(CHAT, body("slow", stream=True))) for _ in range(10)]
    await until(lambda: engine.begun == 11)
    address = database.url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    operator = await asyncpg.connect(address)
    try:
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await operator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        streams = await asyncio.gather(*working)
        assert {json.loads(events[-1])["error"]["code"] for events in streams} == {"settlement_failed"}
    finally:
        await operator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await operator.close()
    await until(lambda: not gateway.gateway.settlement_failing)
    assert len(await gateway.settled(11)) == 11
    assert len(await gateway.journal()) == 11


async def test_what_a_stopped_gateway_could_not_record_is_recorded_when_it_starts_again(
    gateway_on_both: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(batch: Sequence[Settled]) -> None:
        raise OSError("the disk is gone")

    installation, queue = gateway_on_both, gateway_on_both.gateway._settlements
    with monkeypatch.context() as broken:
        broken.setattr(queue, "_write", fail)
        assert (await installation.post(CHAT, body("normal")))[0] == 503
        await installation.gateway.stop(settle_s=0.2)
    assert await installation.usage() == []
    await installation.gateway.start()
    assert len(await installation.settled(1)) == 1
    assert await installation.journal() == ["inference.completed"]


async def test_usage_and_journal_are_written_in_one_transaction_or_not_at_all(database: Database) -> None:
    write = settlement_writer(database)
    ids = Ids()
    good = [one(ids.new()) for _ in range(3)]
    await write([*good, good[0]])
    assert await _counts(database) == (3, 3)
    await write([*good[:2], *good[:2]])
    assert await _counts(database) == (3, 3)
    twisted = Settled(good[0].event, good[0].entry)
    object.__setattr__(twisted, "event", UsageEvent(**{**_fields(good[0].event), "output_tokens": 9}))
    before = await _counts(database)
    with pytest.raises(Exception, match="already recorded"):
        await write([one(ids.new()), twisted])
    assert await _counts(database) == before


def _fields(event: UsageEvent) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__slots__}


async def _counts(database: Database) -> tuple[int, int]:
    async with database.transaction() as session:
        connection = await session.connection()
        usage = (await connection.exec_driver_sql("SELECT count(*) FROM usage_events")).scalar_one()
        leaves = (await connection.exec_driver_sql("SELECT count(*) FROM journal_leaves")).scalar_one()
    return usage, leaves
