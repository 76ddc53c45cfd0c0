"""What many requests share: caches that load once and stay fresh, and commits that are shared and retried."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from galerne.gateway.cache import FreshCache
from galerne.gateway.keys import KeyCache
from galerne.gateway.settlement import Settled, Settlements, settlement_writer
from galerne.governance import Actor
from galerne.governance.actors import ActorKind
from galerne.identity import KeyGrant
from galerne.journal import Entry
from galerne.kernel import Database, Ids, ManualClock, SystemClock, Unauthenticated, Unavailable
from galerne.metering import UsageEvent

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACTOR = Actor(ActorKind.API_KEY, "key", "org", None)


class Loader:
    """Counts its loads; a key that starts with "bad" is refused, one that starts with "down" fails."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    async def load(self, key: str) -> str:
        self.loads.append(key)
        await asyncio.sleep(0.01)
        if key.startswith("bad"):
            raise Unauthenticated("no")
        if key.startswith("down"):
            raise Unavailable("later")
        return key.upper()


def cache(loader: Loader, clock: ManualClock, capacity: int = 3) -> FreshCache[str, str, str]:
    return FreshCache(loader.load, clock, staleness_s=1.0, refusal_s=1.0, capacity=capacity)


async def test_many_who_ask_at_once_load_once() -> None:
    loader = Loader()
    values = cache(loader, ManualClock(NOW))
    assert await asyncio.gather(*(values.get("a", "a") for _ in range(50))) == ["A"] * 50
    assert loader.loads == ["a"]


async def test_a_value_is_never_staler_than_stated() -> None:
    loader, clock = Loader(), ManualClock(NOW)
    values = cache(loader, clock)
    for elapsed in (0.0, 0.5, 0.999, 1.0, 1.5):
        clock.elapsed_s = elapsed
        await values.get("a", "a")
    assert len(loader.loads) == 2


async def test_refusals_are_remembered_briefly_and_cannot_push_values_out() -> None:
    loader, clock = Loader(), ManualClock(NOW)
    values = cache(loader, clock)
    await values.get("a", "a")
    for number in range(20):
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await values.get(f"bad{number}", f"bad{number}")
    await values.get("a", "a")
    assert loader.loads.count("a") == 1
    assert loader.loads.count("bad7") == 1
    assert len(values) <= 6
    clock.elapsed_s = 1.0
    with pytest.raises(Unauthenticated):
        await values.get("bad19", "bad19")
    assert loader.loads.count("bad19") == 2


async def test_an_outage_is_not_remembered() -> None:
    loader = Loader()
    values = cache(loader, ManualClock(NOW))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await values.get("down", "down")
    assert len(loader.loads) == 2


async def test_one_who_hangs_up_does_not_fail_the_others() -> None:
    loader = Loader()
    values = cache(loader, ManualClock(NOW))
    first = asyncio.create_task(values.get("a", "a"))
    second = asyncio.create_task(values.get("a", "a"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "A"
    assert loader.loads == ["a"]


async def test_a_cached_key_expires_on_time() -> None:
    async def read(presented: str) -> KeyGrant:
        return KeyGrant("k", "gal_", ACTOR, False, None, None, None, NOW + timedelta(seconds=1))

    clock = ManualClock(NOW)
    keys = KeyCache(read, clock, staleness_s=1.0)
    assert (await keys.resolve("secret")).key_id == "k"
    clock.current = NOW + timedelta(seconds=1)
    with pytest.raises(Unauthenticated) as expired:
        await keys.resolve("secret")
    assert expired.value.code == "expired_api_key"


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

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.batches: list[list[str]] = []
        self.poison: str | None = None

    async def write(self, batch: Sequence[Settled]) -> None:
        await asyncio.sleep(0.005)
        if self.failures:
            raise self.failures.pop(0)
        if any(each.event.id == self.poison for each in batch):
            raise ValueError("this one cannot be written")
        self.batches.append([each.event.id for each in batch])


def settlements(writer: Writer, **more: Any) -> Settlements:
    return Settlements(writer.write, SystemClock(), pauses_s=(0.001, 0.001), **more)


async def test_all_who_wait_share_a_commit() -> None:
    writer = Writer()
    sizes: list[int] = []
    queue = settlements(writer, observe=lambda size, seconds: sizes.append(size))
    queue.start()
    await asyncio.gather(*(queue.settle(one(f"{number:032x}")) for number in range(100)))
    await queue.stop()
    assert sorted(each for batch in writer.batches for each in batch) == [f"{number:032x}" for number in range(100)]
    assert len(writer.batches) <= 2
    assert sum(sizes) == 100


async def test_an_outage_is_retried_and_then_told_to_those_who_wait() -> None:
    down = [OperationalError("x", None, OSError()), OSError()]
    writer = Writer(down)
    queue = settlements(writer)
    queue.start()
    await queue.settle(one("a" * 32))
    writer.failures = [OSError() for _ in range(3)]
    with pytest.raises(Unavailable) as failed:
        await queue.settle(one("b" * 32))
    assert failed.value.code == "settlement_failed"
    await queue.settle(one("c" * 32))
    await queue.stop()
    assert writer.batches == [["a" * 32], ["c" * 32]]


async def test_one_that_cannot_be_written_does_not_take_down_its_neighbours() -> None:
    writer = Writer()
    writer.poison = "1" * 32
    queue = settlements(writer)
    queue.start()
    found = await asyncio.gather(*(queue.settle(one(str(number) * 32)) for number in range(4)), return_exceptions=True)
    await queue.stop()
    assert [type(each) for each in found] == [type(None), Unavailable, type(None), type(None)]


async def test_stopping_writes_what_waits_even_when_nobody_waits_for_it_any_more() -> None:
    writer = Writer()
    queue = settlements(writer)
    queue.start()
    waiting = [asyncio.create_task(queue.settle(one(str(number) * 32))) for number in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await queue.stop()
    assert sorted(each[0] for batch in writer.batches for each in batch) == ["0", "1", "2"]


async def test_a_full_queue_says_so() -> None:
    queue = settlements(Writer(), capacity=2)
    queue.start()
    waiting = [asyncio.create_task(queue.settle(one(str(number) * 32))) for number in range(2)]
    await asyncio.sleep(0)
    assert queue.full
    await asyncio.gather(*waiting)
    assert not queue.full
    await queue.stop()


async def test_usage_and_journal_are_written_in_one_transaction_or_not_at_all(database: Database) -> None:
    write = settlement_writer(database)
    ids = Ids()
    good = [one(ids.new()) for _ in range(3)]
    await write(good)
    assert await _counts(database) == (3, 3)
    await write(good[:2])
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
