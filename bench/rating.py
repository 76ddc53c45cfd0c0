"""How many usage events are rated a second on one core: pure, summed into buckets, and in the database.

Beside each stands reading the same events as rows of SQLite and as JSON: no rating could be faster than its input.
"""

import asyncio
import gc
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from bench.report import Report
from galerne.billing import (
    NOTICE,
    Customer,
    Match,
    NewRate,
    PriceBook,
    PriceChange,
    Rate,
    Rater,
    UsedTokens,
    buckets_of,
    change_prices,
    rate_batch,
)
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, SystemClock
from galerne.metering import UsageEvent, record

EVENTS = 200_000
STORED = 30_000
TARGET_PER_S = 200_000
_BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
_SEED = 20261123


def run() -> Report:
    """The figures; the best of three, since only one core is asked and others disturb it."""
    rater = Rater(_book(), lambda organisation_id, _at: Customer(organisation_id, "free", "EUR"))
    events = _events()
    usage = rater.rate(events).usage
    encoded = msgspec.json.encode(events)
    read_rows, read_json = _sqlite_reader(events), msgspec.json.Decoder(list[UsedTokens])
    pure = _per_s(lambda: rater.rate(events))
    summed = _per_s(lambda: buckets_of(rater.rate(events).usage))
    rows, decoded = _per_s(read_rows), _per_s(lambda: read_json.decode(encoded))
    stored = asyncio.run(_stored())
    figures = (
        ("rated, each class of each event", pure),
        ("rated and summed into hourly buckets", summed),
        ("rated in SQLite: read, states and buckets written, committed", stored),
        ("their rows read from SQLite", rows),
        ("their JSON decoded by msgspec", decoded),
    )
    return Report(
        title="rating",
        how=f"{EVENTS:,} events of 1,000 customers, {len(usage):,} rated lines; {STORED:,} in SQLite; seed {_SEED}.",
        columns=("what", "events/s", "of reading rows", f"target {TARGET_PER_S:,}"),
        rows=[(name, f"{per_s:,.0f}", f"{per_s / rows:.2f}", _met(name, per_s)) for name, per_s in figures],
        remarks=(
            "the target is for pure rating; the database writes one row an event, and its commit waits for the disk",
        ),
    )


def _met(name: str, per_s: float) -> str:
    return "" if not name.startswith("rated") or "SQLite" in name else "met" if per_s >= TARGET_PER_S else "missed"


def _per_s(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        gc.collect()
        began_s = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - began_s)
        del result
    return EVENTS / best


def _book() -> PriceBook:
    prices = (("input", 10**8), ("cached", 10**7), ("output", 3 * 10**8))
    return PriceBook(
        Rate(
            id=name,
            list_id="default",
            version=1,
            currency="EUR",
            match=Match(token_class=name),  # type: ignore[arg-type]  # one of the classes
            effective_from=_BEGIN,
            nano=nano,
            per=10**6,
        )
        for name, nano in prices
    )


def _events() -> list[UsedTokens]:
    dice = random.Random(_SEED)
    tiers = ("standard", "standard", "batch", "priority")
    found: list[UsedTokens] = []
    for number in range(EVENTS):
        customer = dice.randrange(1000)
        counts = (dice.randrange(5000), dice.choice((0, 500)), dice.randrange(1000))
        at = _BEGIN + timedelta(seconds=number / 50)
        who = (f"w{customer}", f"k{customer}", f"o{customer}")
        found.append(
            UsedTokens(f"{number:032x}", at, *who, "large", "chat.completions", dice.choice(tiers), "fr", *counts)
        )
    return found


def _sqlite_reader(events: list[UsedTokens]) -> Callable[[], object]:
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE events ({', '.join(UsedTokens._fields)})")
    rows = [(each[0], each[1].isoformat(), *each[2:]) for each in events]
    connection.executemany(f"INSERT INTO events VALUES ({','.join('?' * 12)})", rows)
    return lambda: connection.execute("SELECT * FROM events").fetchall()


async def _stored() -> float:
    with tempfile.TemporaryDirectory() as folder:
        database, clock = Database(f"sqlite+aiosqlite:///{Path(folder) / 'galerne.db'}"), SystemClock()
        await database.migrate()
        names: Any = ("input", "cached", "output")
        rates = tuple(NewRate(match=Match(token_class=name), currency="EUR", nano=10**8) for name in names)
        async with database.transaction() as session:
            await change_prices(session, SYSTEM, PriceChange(rates=rates), Ids(), clock)
        now = clock.now() + NOTICE + timedelta(seconds=1)
        for start in range(0, STORED, 5000):
            async with database.transaction() as session:
                await record(session, [_recorded(now, number) for number in range(start, start + 5000)])
        began_s, after, more = time.perf_counter(), "", True
        while more:
            async with database.transaction() as session:
                batch = await rate_batch(session, clock, after)
            after, more = batch.last_id, batch.more
        took_s = time.perf_counter() - began_s
        await database.close()
    return STORED / took_s


def _recorded(at: datetime, number: int) -> UsageEvent:
    return UsageEvent(
        id=f"{int(at.timestamp() * 1000):012x}{number:020x}",
        organisation_id=f"o{number % 1000}",
        workspace_id=None,
        key_id=f"k{number % 1000}",
        model="large",
        model_version="1",
        endpoint="chat.completions",
        dialect="openai",
        input_tokens=number % 5000,
        cached_tokens=number % 500,
        output_tokens=number % 1000,
        estimated=False,
        streamed=True,
        partial=False,
        outcome="completed",
        finish_reason="stop",
        status=200,
        started_at=at,
        queue_ms=0.0,
        ttft_ms=1.0,
        total_ms=2.0,
    )
