"""Steps that move what an older version wrote: prices of before 0009, transfers of before 0015, sums of before 0023."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from galerne.billing import BucketKey, LineKey, Sum, list_rates
from galerne.kernel import Database, UtcTime
from galerne.ledger import burn_lots, check_books, lots_of
from tests.billing.rating.buckets import buckets_in
from tests.conftest import Copies

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
_RATE = text(
    "INSERT INTO rates (id, model_id, token_class, currency, effective_from, nano_per_million, created_at)"
    " VALUES (:id, 'large', :token_class, 'EUR', :effective_from, :nano, :created_at)"
)
_ACCOUNT = text(
    "INSERT INTO ledger_accounts (id, organisation_id, kind, currency, credit_limit_nano, created_at)"
    " VALUES (:id, :organisation_id, :kind, 'EUR', :limit, :at)"
)
_HOLD = text(
    "INSERT INTO ledger_holds (id, debit_account_id, credit_account_id, amount_nano, holder, at, expires_at_ms)"
    " VALUES (:id, 'prepaid:org:EUR', 'revenue:EUR', :nano, 'gateway', :at, 0)"
)
_TRANSFER = text(
    "INSERT INTO ledger_transfers"
    " (id, kind, hold_id, debit_account_id, credit_account_id, amount_nano, reason, at)"
    " VALUES (:id, :kind, :hold, :debit, :credit, :nano, :reason, :at)"
)
_BUCKET = text(
    "INSERT INTO usage_buckets (period, organisation_id, workspace_id, key_id, hour, rate_id, model_id, token_class,"
    " service_tier, zone, batch, tier_index, currency, requests, quantity, nano)"
    " VALUES (:period, :organisation_id, '', 'key', :hour, :rate_id, 'large', 'input', 'standard', '', :batch, 0,"
    " 'EUR', 2, 30, :nano)"
)
_RATING = text(
    "INSERT INTO usage_ratings (event_id, revision, state, organisation_id, occurred_at, period, version, nano,"
    " currency, correction, rated_at) VALUES (:id, :revision, 'rated', 'org', :at, '2026-11', 1, 7, 'EUR', 0, :at)"
)
Old = Callable[[str], None]
Statement = tuple[Any, dict[str, Any]]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
    copies: Copies = request.getfixturevalue("copies")
    url = copies.address.format(name=copies.make())
    asyncio.run(_alone(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"))
    return url


@pytest.fixture
async def migrated(empty_url: str) -> AsyncGenerator[Database]:
    database = Database(empty_url)
    yield database
    await database.close()


async def step_to(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "galerne:migrations")
    config.attributes["url"] = url
    await asyncio.to_thread(command.upgrade, config, revision)


async def write(database: Database, *statements: Statement) -> None:
    async with database.transaction() as session:
        for statement, values in statements:
            times = {name: UtcTime() for name, value in values.items() if isinstance(value, datetime)}
            await session.execute(statement.bindparams(*(_typed(name, times[name]) for name in times)), values)


async def test_prices_of_before_count_as_they_did_and_stay_as_they_are(empty_url: str, migrated: Database) -> None:
    await step_to(empty_url, "0008")
    made: list[tuple[Any, ...]] = [
        # Of two from the same time on the one made last counted, whatever its id.
        ("b", "input", NOON, 5, NOON),
        ("a", "input", NOON, 7, NOON + timedelta(seconds=1)),
        ("c", "cached", NOON, 1, NOON),
        ("d", "output", NOON, 0, NOON),
        ("e", "input", NOON + timedelta(days=1), 9, NOON - timedelta(days=1)),
    ]
    names = ("id", "token_class", "effective_from", "nano", "created_at")
    await write(migrated, *((_RATE, dict[str, Any](zip(names, row, strict=True))) for row in made))
    await migrated.migrate()
    async with migrated.reading() as session:
        now, later = await list_rates(session, NOON), await list_rates(session, NOON + timedelta(days=1))
        assert await list_rates(session, NOON - timedelta(microseconds=1)) == []
        version = text("SELECT created_at FROM price_versions ORDER BY number").columns(created_at=UtcTime())
        assert list(await session.scalars(version)) == sorted(row[4] for row in made)
    assert [
        (each.input_nano_per_million, each.cached_nano_per_million, each.output_nano_per_million) for each in now
    ] == [(7, 1, 0)]
    assert [each.input_nano_per_million for each in later] == [9]


async def test_what_was_spent_before_lots_were_known_is_burned_in_the_order_of_then(
    empty_url: str, migrated: Database
) -> None:
    await step_to(empty_url, "0014")
    await write(migrated, *_accounts(), _pay("payment-1", 10, 0), _hold("hold-1", 8, 1), _settle("use-1", 5, 2))
    await write(migrated, _pay("payment-2", 4, 3), _settle("use-2", 3, 4), _hold("hold-2", 6, 5))
    await migrated.migrate()
    await write(migrated, _settle("use-3", 6, 6, "hold-2"))
    assert await burn_lots(migrated) == 5
    async with migrated.reading() as session:
        left = {lot.id: lot.left_nano for lot in await lots_of(session, "org")}
        assert await check_books(session) == []
    assert left == {"payment-1": 0, "payment-2": 0}


@pytest.mark.parametrize("empty_url", ["postgresql"], indirect=True)
async def test_transfers_are_numbered_as_they_were_made_wherever_they_lie(empty_url: str, migrated: Database) -> None:
    await step_to(empty_url, "0014")
    await write(migrated, *_accounts())
    filling = [_pay(f"undone-{number}", 1, 0, "x" * 1500) for number in range(20)]
    with pytest.raises(ZeroDivisionError):
        await _undone(migrated, filling)
    await write(migrated, _pay("payment-1", 10, 0, "y" * 1500))
    await _alone(empty_url, "VACUUM ledger_transfers")  # what was undone leaves room in front, which the next ones take
    await write(migrated, _hold("hold-1", 10, 1), _settle("use-1", 10, 2))
    async with migrated.reading() as session:
        lie = list(await session.scalars(text("SELECT id FROM ledger_transfers ORDER BY ctid")))
    assert lie.index("use-1") < lie.index("payment-1")
    await migrated.migrate()
    await write(migrated, _pay("payment-2", 1, 3))
    assert await burn_lots(migrated) == 3
    async with migrated.reading() as session:
        order = list(await session.scalars(text("SELECT id FROM ledger_transfers ORDER BY seq")))
        assert await check_books(session) == []
    assert order == ["payment-1", "hold-1", "use-1", "payment-2"]


async def _undone(database: Database, statements: Sequence[Statement]) -> None:
    async with database.transaction() as session:
        for statement, values in statements:
            await session.execute(statement.bindparams(_typed("at", UtcTime())), values)
        raise ZeroDivisionError


async def _alone(url: str, *statements: str) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


def _accounts() -> list[Statement]:
    accounts = (("prepaid:org:EUR", "org", "prepaid", 0), ("cash_clearing:EUR", None, "cash_clearing", None))
    names = ("id", "organisation_id", "kind", "limit")
    rows = [dict(zip(names, row, strict=True)) for row in (*accounts, ("revenue:EUR", None, "revenue", None))]
    return [(_ACCOUNT, {**row, "at": NOON}) for row in rows]


def _pay(name: str, nano: int, second: int, reason: str = "paid") -> Statement:
    accounts = {"debit": "cash_clearing:EUR", "credit": "prepaid:org:EUR"}
    return _transfer({"id": name, "kind": "post", "hold": None, **accounts, "nano": nano, "reason": reason}, second)


def _settle(name: str, nano: int, second: int, hold: str = "hold-1") -> Statement:
    accounts = {"debit": "prepaid:org:EUR", "credit": "revenue:EUR"}
    return _transfer({"id": name, "kind": "settle", "hold": hold, **accounts, "nano": nano, "reason": None}, second)


def _transfer(values: dict[str, Any], second: int) -> Statement:
    return _TRANSFER, {**values, "at": NOON + timedelta(seconds=second)}


def _hold(name: str, nano: int, second: int) -> Statement:
    return _HOLD, {"id": name, "nano": nano, "at": NOON + timedelta(seconds=second)}


def _typed(name: str, kind: UtcTime) -> Any:
    return bindparam(name, type_=kind)


async def test_hourly_sums_of_before_are_the_same_and_ratings_stay_as_they_are(
    empty_url: str, migrated: Database
) -> None:
    await step_to(empty_url, "0022")
    sums = [("2026-11", "org", "r1", 0, 5), ("2026-12", "org", "r1", 0, -5), ("2026-11", "other", "r1*1/2", 1, 7)]
    for number, (period, organisation_id, rate_id, batch, nano) in enumerate(sums):
        values = {"period": period, "organisation_id": organisation_id, "rate_id": rate_id, "batch": bool(batch)}
        await write(migrated, (_BUCKET, {**values, "nano": nano, "hour": NOON + number * timedelta(hours=1)}))
    for event_id, revision in (("b" * 32, 0), ("a" * 32, 0), ("a" * 32, 1)):
        await write(migrated, (_RATING, {"id": event_id, "revision": revision, "at": NOON}))
    await migrated.migrate()
    async with migrated.reading() as session:
        found = {**await buckets_in(session, "2026-11"), **await buckets_in(session, "2026-12")}
        ratings = await session.execute(text("SELECT event_id, revision FROM usage_ratings ORDER BY 1, 2"))
        assert [tuple(row) for row in ratings] == [("a" * 32, 0), ("a" * 32, 1), ("b" * 32, 0)]
    line = LineKey("large", "input", "standard", "", False, "r1", 0)
    other = line._replace(batch=True, rate_id="r1*1/2")
    assert found == {
        BucketKey("org", None, "key", NOON, "EUR", line): Sum(2, 30, 5),
        BucketKey("org", None, "key", NOON + timedelta(hours=1), "EUR", line): Sum(2, 30, -5),
        BucketKey("other", None, "key", NOON + timedelta(hours=2), "EUR", other): Sum(2, 30, 7),
    }
    for change in ("UPDATE usage_ratings SET nano = 0", "UPDATE rated_keys SET number = 9", "DELETE FROM rated_lines"):
        with pytest.raises(DBAPIError, match="append-only"):
            await write(migrated, (text(change), {}))
