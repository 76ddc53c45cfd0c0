"""Scripts do the same on a session and on a writer, on both databases."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, MetaData, String, text
from sqlalchemy import Table as SqlTable

from galerne.kernel import (
    Database,
    Increase,
    Insert,
    Query,
    Script,
    UtcTime,
    Writer,
    blames_content,
    open_writer,
    utc_text,
)
from galerne.kernel.script import calls, run_in_session, run_on_sqlite
from galerne.metering.tables import UsageEventRow

EVENTS = UsageEventRow.__table__
assert isinstance(EVENTS, SqlTable)
COLUMNS = tuple(name for name in EVENTS.c.keys() if name not in ("recorded_at", "tier", "zone"))  # noqa: SIM118
AT = datetime(2026, 11, 23, 15, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))


def row(number: int) -> tuple[object, ...]:
    counts, times = (number, 0, 1), (0.5, None, 2.0)
    names = ("org", None, "key", "m", "v", "chat", "openai")
    return (f"{number:032x}", *names, *counts, False, True, False, "completed", None, 200, AT, *times)


def insert(count: int) -> Script[int]:
    yield Insert(EVENTS, COLUMNS, [row(number) for number in range(count)])
    found = yield Query("SELECT count(*), sum(input_tokens) FROM usage_events WHERE model = :model", {"model": "m"})
    return int(found[0][1])


def fail() -> Script[None]:
    yield Query("SELECT 1", {})
    raise RuntimeError("stop")


@pytest.fixture
async def writer(database: Database) -> AsyncGenerator[Writer]:
    writer = open_writer(database.url)
    yield writer
    await writer.close()


@pytest.mark.parametrize("count", [1, 37, 700])
async def test_a_script_writes_the_same_rows_on_a_writer_as_in_a_session(
    database: Database, writer: Writer, count: int
) -> None:
    assert await writer.run([insert(count)]) == [count * (count - 1) // 2]
    read = text("SELECT * FROM usage_events ORDER BY id")
    async with database.reading() as session:
        written = [tuple(each)[:-3] for each in (await session.execute(read)).all()]
    with pytest.raises(RuntimeError, match="undo"):
        async with database.transaction() as session:
            await session.execute(text("DROP TRIGGER usage_events_no_delete" if database.is_sqlite else "SELECT 1"))
            await session.execute(
                text(
                    "DELETE FROM usage_events"
                    if database.is_sqlite
                    else "ALTER TABLE usage_events DISABLE TRIGGER USER"
                )
            )
            if not database.is_sqlite:
                await session.execute(text("DELETE FROM usage_events"))
            await run_in_session(session, insert(count))
            assert [tuple(each)[:-3] for each in (await session.execute(read)).all()] == written
            raise RuntimeError("undo")


async def test_a_time_is_stored_as_utc(database: Database, writer: Writer) -> None:
    await writer.run([insert(1)])
    async with database.reading() as session:
        assert await session.scalar(EVENTS.select().with_only_columns(EVENTS.c.started_at)) == AT.astimezone(UTC)


async def test_one_failing_script_undoes_those_that_shared_its_transaction(database: Database, writer: Writer) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        await writer.run([insert(3), fail()])
    assert await writer.run([insert(2)]) == [1]


async def test_a_writer_waits_for_another_one_without_stopping_the_loop(database: Database, writer: Writer) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE journal_head SET seq = seq + 1"))
        work = asyncio.create_task(writer.run([_advance()]))
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0.002)
            ticks += 1
        assert not work.done()
        assert ticks == 20
    assert await work == [2]


def _advance() -> Script[int]:
    yield Query("UPDATE journal_head SET seq = seq + 1", {})
    return int((yield Query("SELECT seq FROM journal_head FOR UPDATE", {}))[0][0])


async def test_increases_add_to_each_row_named(database: Database, writer: Writer) -> None:
    table = SqlTable("counters", type(EVENTS.metadata)(), *_counter_columns())
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE counters (id VARCHAR(9) PRIMARY KEY, used BIGINT, held BIGINT)"))
        await session.execute(text("INSERT INTO counters VALUES ('a', 1, 10), ('b', 2, 20), ('c', 3, 30)"))
    await writer.run([_increase(table)])
    async with database.reading() as session:
        found = (await session.execute(text("SELECT * FROM counters ORDER BY id"))).all()
    assert [tuple(each) for each in found] == [("a", 6, 4), ("b", 2, 20), ("c", 2**40 + 3, 31)]


def _counter_columns() -> list[Column[Any]]:
    return [Column("id", String(9)), Column("used", BigInteger), Column("held", BigInteger)]


def _increase(table: SqlTable) -> Script[None]:
    yield Increase(table, "id", ("used", "held"), {"c": (2**40, 1), "a": (5, -6)})
    yield Increase(table, "id", ("used", "held"), {})


@pytest.mark.parametrize("runner", ["session", "writer"])
async def test_rows_whose_key_exists_are_added_to_and_others_written(
    database: Database, writer: Writer, runner: str
) -> None:
    table = SqlTable("shares", MetaData(), *_share_columns())
    async with database.transaction() as session:
        await session.execute(
            text("CREATE TABLE shares (a INTEGER, b VARCHAR(9), at INTEGER, n BIGINT, m BIGINT, PRIMARY KEY (a, b))")
        )
        await session.execute(text("INSERT INTO shares VALUES (1, 'x', 7, 2, 3), (2, 'x', 7, 2, 3)"))
    many = [(3, f"{number}", 8, number, -number) for number in range(1000)]
    for rows in ([(1, "x", 8, 2**40, -3), (1, "y", 8, 5, 5)], [(1, "y", 9, 1, 1)], [], many, many):
        script = _add(table, rows)
        if runner == "writer":
            await writer.run([script])
            continue
        async with database.transaction() as session:
            await run_in_session(session, script)
    async with database.reading() as session:
        found = (await session.execute(text("SELECT * FROM shares WHERE a < 3 ORDER BY a, b"))).all()
        sums = (await session.execute(text("SELECT count(*), sum(n), sum(m) FROM shares WHERE a = 3"))).one()
    assert tuple(sums) == (1000, 999_000, -999_000)
    assert [tuple(each) for each in found] == [(1, "x", 7, 2**40 + 2, 0), (1, "y", 8, 6, 6), (2, "x", 7, 2, 3)]


def _share_columns() -> list[Column[Any]]:
    key = [Column("a", BigInteger, primary_key=True), Column("b", String(9), primary_key=True)]
    return [*key, *(Column(name, BigInteger) for name in ("at", "n", "m"))]


def _add(table: SqlTable, rows: list[tuple[Any, ...]]) -> Script[None]:
    yield Insert(table, ("a", "b", "at", "n", "m"), rows, adding=("n", "m"))


@pytest.mark.parametrize("count", [1, 5, 300])
def test_times_that_sqlite_gave_as_texts_are_written_as_they_are(count: int) -> None:
    table = SqlTable("seen", MetaData(), Column("id", String), Column("at", UtcTime))
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE seen (id, at)")
    stored = utc_text(AT)
    for at in (AT, stored, AT):
        run_on_sqlite(connection, _see(table, [(str(number), at) for number in range(count)]))
    assert connection.execute("SELECT DISTINCT at FROM seen").fetchall() == [(stored,)]
    assert connection.execute("SELECT count(*) FROM seen").fetchall() == [(3 * count,)]
    connection.close()


def _see(table: SqlTable, rows: list[tuple[Any, ...]]) -> Script[None]:
    yield Insert(table, ("id", "at"), rows)


def test_sqlite_gets_many_rows_in_one_call_of_one_statement() -> None:
    table = SqlTable("narrow", MetaData(), Column("a", BigInteger), Column("b", BigInteger))
    rows = [(number, number) for number in range(70_000)]
    ((sql, parameters),) = calls(Insert(table, ("a", "b"), rows), "sqlite")
    ((one, single),) = calls(Insert(table, ("a", "b"), rows[:1]), "sqlite")
    assert (parameters, single) == (rows, rows[0])
    assert sql == one
    assert list(calls(Insert(table, ("a", "b"), []), "sqlite")) == []


async def test_lists_are_values_too(writer: Writer) -> None:
    await writer.run([insert(9)])
    assert await writer.run([_among([f"{3:032x}", f"{5:032x}", "none"]), _among([])]) == [2, 0]


def _among(ids: list[str]) -> Script[int]:
    return len((yield Query("SELECT id FROM usage_events WHERE id IN :ids", {"ids": ids})))


@given(st.integers(1, 1500), st.integers(1, 60))
def test_sqlite_gets_every_row_that_answers_once_in_statements_of_few_sizes(count: int, width: int) -> None:
    table = SqlTable("wide", MetaData(), *(Column(f"c{number}", BigInteger) for number in range(width)))
    columns = tuple(table.c.keys())
    rows = [tuple(range(number, number + width)) for number in range(count)]
    made = list(calls(Insert(table, columns, rows, once_by="c0"), "sqlite"))
    assert [value for _, values in made for value in values] == [value for row in rows for value in row]
    assert len({sql for sql, _ in made}) <= 9
    assert max(len(values) for _, values in made) <= 32_000


def test_what_is_the_requests_fault_is_told_from_an_outage() -> None:
    assert blames_content(sqlite3.IntegrityError())
    assert blames_content(OverflowError())
    assert blames_content(asyncpg.UniqueViolationError())
    assert not blames_content(sqlite3.OperationalError())
    assert not blames_content(asyncpg.ConnectionDoesNotExistError())
    assert not blames_content(asyncpg.AdminShutdownError())
    assert not blames_content(ConnectionRefusedError())


async def test_a_writer_comes_back_after_a_file_could_not_be_opened(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "later" / "galerne.db"
    writer = open_writer(Database(f"sqlite+aiosqlite:///{path}").url)
    with pytest.raises(sqlite3.OperationalError):
        await writer.run([insert(1)])
    path.parent.mkdir()
    shutil.copy(sqlite_template, path)
    assert await writer.run([insert(1)]) == [0]
    await writer.close()
