"""Pools to take from, wishes to take with, and what is left of a database's books of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from galerne.kernel import Database, Script, run_in_session
from galerne.metering.limit_windows import Window
from galerne.metering.limits import PoolSpec, Quantity
from galerne.metering.pool_laws import Take

NOON_MS = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1000)
MINUTE_MS = 60_000
HOUR_MS = 3_600_000


def pool(amount: int, window: Window = "day", name: str = "rule:key-1", quantity: Quantity = "tokens") -> PoolSpec:
    return PoolSpec(name, quantity, window, amount)


def take(spec: PoolSpec, need: int, holder: str = "a", **changes: Any) -> Take:
    wish: dict[str, Any] = {"least": need, "need": need, "most": need, "expires_at_ms": NOON_MS + MINUTE_MS}
    return Take(pool=spec, holder=holder, **(wish | changes))


async def run(database: Database, script: Script[Any]) -> Any:
    async with database.transaction() as session:
        return await run_in_session(session, script)


async def taken_of(database: Database, pool_id: str = "rule:key-1") -> int | None:
    rows = await read(database, "SELECT taken FROM limit_pools WHERE id = :id", id=pool_id)
    return rows[0][0] if rows else None


async def leases(database: Database) -> dict[str, tuple[int, int]]:
    rows = await read(database, "SELECT id, amount, spent FROM limit_leases")
    return {lease_id: (amount, spent) for lease_id, amount, spent in rows}


async def read(database: Database, sql: str, **values: Any) -> Sequence[Any]:
    async with database.reading() as session:
        return (await session.execute(text(sql), values)).all()
