"""Small reads: one state of the database whatever is written meanwhile, nothing written, and 503 where it is away."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import make_url, text

from galerne.kernel import Database, Query, Reader, Script, Unavailable, open_reader, utc_time
from galerne.kernel.logs import captured_logs
from tests.gateway.outages import away

LEFT_OPEN = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"""
PLANS = "SELECT id, weight FROM plans WHERE id IN :names ORDER BY id"


@pytest.fixture
async def reader(database: Database) -> AsyncGenerator[Reader]:
    reader = open_reader(database.url)
    yield reader
    await reader.close()


def weights(*names: str) -> Script[dict[str, int]]:
    rows = yield Query(PLANS, {"names": list(names)})
    return dict(map(tuple, rows))


async def write(database: Database, weight: int) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE plans SET weight = :weight"), {"weight": weight})


async def test_a_read_sees_what_was_committed_before_it(database: Database, reader: Reader) -> None:
    await write(database, 7)
    assert await reader.run(weights("free", "pro", "nobody's")) == {"free": 7, "pro": 7}
    await write(database, 8)
    assert await reader.run(weights("free")) == {"free": 8}


async def test_a_script_sees_one_state_whatever_is_written_meanwhile(database: Database, reader: Reader) -> None:
    async def written() -> None:
        for weight in range(1, 60):
            await write(database, weight)

    def twice() -> Script[tuple[dict[str, int], dict[str, int]]]:
        first = yield from weights("free", "pro")
        return first, (yield from weights("free", "pro"))

    await write(database, 100)
    writing, seen = asyncio.create_task(written()), set[int]()
    while not writing.done():
        first, second = await reader.run(twice())
        assert first == second
        assert len(set(first.values())) == 1, "one commit wrote both"
        seen.update(first.values())
        await asyncio.sleep(0)
    await writing
    assert len(seen) > 1, "something was written between two reads"


async def test_many_read_at_once(database: Database, reader: Reader) -> None:
    await write(database, 3)
    assert await asyncio.gather(*(reader.run(weights("free")) for _ in range(50))) == [{"free": 3}] * 50


async def test_nothing_can_be_written(database: Database, reader: Reader) -> None:
    def change() -> Script[None]:
        yield Query("UPDATE plans SET weight = 99", {})

    with pytest.raises(Unavailable):
        await reader.run(change())
    assert 99 not in (await reader.run(weights("free", "pro"))).values()


async def test_what_a_script_raises_comes_out_and_leaves_the_reader_whole(reader: Reader) -> None:
    def refused() -> Script[None]:
        yield Query("SELECT 1", {})
        raise LookupError("nobody has that")

    for _ in range(20):
        with pytest.raises(LookupError):
            await reader.run(refused())
    assert list(await reader.run(weights("free"))) == ["free"]


async def test_times_and_lists_are_read_alike_from_both_databases(database: Database, reader: Reader) -> None:
    at = datetime(2026, 11, 24, 1, 2, 3, 456, tzinfo=UTC)
    async with database.transaction() as session:
        await session.execute(
            text("INSERT INTO price_lists (id, name, created_at) VALUES ('own', 'own', :at)"),
            {"at": at if not database.is_sqlite else "2026-11-24 01:02:03.000456"},
        )

    def read() -> Script[datetime]:
        ((found,),) = yield Query("SELECT created_at FROM price_lists WHERE id = 'own'", {})
        return utc_time(found)

    assert await reader.run(read()) == at


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_database_that_is_away_is_unavailable_and_read_again_once_it_is_back(
    database: Database, reader: Reader
) -> None:
    assert list(await reader.run(weights("free"))) == ["free"]
    async with away(database):
        with pytest.raises(Unavailable) as refused:
            await reader.run(weights("free"))
        assert refused.value.retry_after_s == 1
    assert list(await reader.run(weights("free"))) == ["free"]


async def test_a_file_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    reader = open_reader(make_url(f"sqlite:///{tmp_path}/nowhere/galerne.db"))
    with pytest.raises(Unavailable):
        await reader.run(weights("free"))


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    reader = open_reader(make_url(f"sqlite:///{tmp_path}/galerne.db"))
    with captured_logs() as logs, pytest.raises(Unavailable):
        await reader.run(weights("free"))
    assert not (tmp_path / "galerne.db").exists()
    assert [(each["event"], each["code"]) for each in logs] == [("database failed", "SQLITE_CANTOPEN")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_file_that_another_process_has_for_itself_stops_the_event_loop_for_a_moment(
    database: Database, reader: Reader
) -> None:
    await database.close()
    with closing(sqlite3.connect(str(database.url.database), isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE plans SET weight = 9")
        begun_s = monotonic()
        with pytest.raises(Unavailable):
            await reader.run(weights("free"))
        assert monotonic() - begun_s < 1.0
    assert await reader.run(weights("free")) == {"free": 9}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_reads_that_are_given_up_leave_neither_transactions_nor_fewer_connections(
    database: Database, reader: Reader
) -> None:
    def slow() -> Script[None]:
        yield Query("SELECT pg_sleep(5)", {})

    for _ in range(3):
        reading = [asyncio.create_task(reader.run(slow())) for _ in range(6)]
        await asyncio.sleep(0.05)
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    assert len(await asyncio.gather(*(reader.run(weights("free")) for _ in range(8)))) == 8
    async with database.reading() as session:
        assert await session.scalar(text(LEFT_OPEN)) == 0
