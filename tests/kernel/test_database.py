import asyncio
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Dialect, text
from sqlalchemy.exc import DBAPIError

from galerne import migrations
from galerne.apps import control_plane
from galerne.kernel import Conflict, Database, Table, Unavailable, UtcTime, duties

VERSIONS = Path(migrations.__file__).parent / "versions"
TABLES_COME_FROM = (control_plane, duties)


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def difference(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))


async def test_migrations_build_exactly_the_tables_that_the_code_declares(database: Database) -> None:
    async with database.transaction() as session:
        connection = await session.connection()
        assert await connection.run_sync(difference) == []


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await database.migrate()
    newest = max(path.name[1:5] for path in VERSIONS.glob("v*.py"))
    async with database.reading() as session:
        assert (await session.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [newest]


async def test_a_schema_of_another_version_is_refused_and_left_as_it_is(database: Database) -> None:
    await database.check_schema()
    for change, found in (
        ("UPDATE alembic_version SET version_num = '9999'", "9999"),
        ("DROP TABLE alembic_version", "not"),
    ):
        async with database.transaction() as session:
            await session.execute(text(change))
        with pytest.raises(Conflict, match=found) as refusal:
            await database.check_schema()
        assert "galerne serve" in refusal.value.message


async def test_a_database_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(Unavailable, match="no such file"):
        await database.check_schema()
    await database.close()
    assert files(tmp_path) == []


async def test_a_new_database_is_migrated_by_several_at_once(tmp_path: Path) -> None:
    databases = [Database(f"sqlite+aiosqlite:///{tmp_path}/new/galerne.db") for _ in range(2)]
    await asyncio.gather(*(each.migrate() for each in databases))
    for each in databases:
        await each.check_schema()
        await each.close()


async def test_a_new_file_can_be_opened_by_several_at_once(tmp_path: Path) -> None:
    async def use(path: Path) -> None:
        database = Database(f"sqlite+aiosqlite:///{path}")
        try:
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))
        finally:
            await database.close()

    for number in range(60):
        await asyncio.gather(*(use(tmp_path / f"{number}.db") for _ in range(4)))


async def test_a_schema_of_a_later_version_is_left_alone(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="is 9999, and this version knows none after"):
        await database.migrate()


async def test_what_a_step_fails_with_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/galerne.db")
    await database.migrate()
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(Conflict, match="not there"):
        await database.check_schema()
    with pytest.raises(Unavailable, match=r"already exists"):
        await database.migrate()
    await database.close()


async def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    database = Database("postgresql+asyncpg://someone:hidden-word@127.0.0.1:1/galerne")
    with pytest.raises(Unavailable, match=r"someone:\*\*\*@127\.0\.0\.1:1/galerne cannot be used") as refusal:
        await database.migrate()
    assert "hidden-word" not in refusal.value.message
    await database.close()


async def test_a_failed_transaction_leaves_nothing_behind(database: Database) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        async with database.transaction() as session:
            await session.execute(text("UPDATE journal_head SET seq = 7"))
            raise RuntimeError("stop")
    async with database.reading() as session:
        assert await session.scalar(text("SELECT seq FROM journal_head")) == 0


async def test_a_reading_session_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"read-?only"):
        async with database.reading() as session:
            await session.execute(text("UPDATE journal_head SET seq = 7"))


async def test_an_error_of_the_database_does_not_repeat_the_values(database: Database) -> None:
    with pytest.raises(DBAPIError) as failure:
        async with database.transaction() as session:
            await session.execute(
                text("INSERT INTO organisations (id, nonsense) VALUES (:id, :x)"), {"id": "a", "x": "SECRET"}
            )
    assert "SECRET" not in str(failure.value)


def test_a_time_without_a_zone_is_refused_before_it_is_stored() -> None:
    dialect = Dialect()
    with pytest.raises(ValueError, match="without a zone"):
        UtcTime().process_bind_param(datetime(2026, 1, 1), dialect)  # noqa: DTZ001
