"""What a gateway keeps stays within its bounds (docs/guides/memory.md): filled past each, its size stays."""

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from galerne.billing import Plan
from galerne.gateway.cells import MOST_CELLS, MOST_HISTOGRAMS, Buckets, Cells, Family, Number
from galerne.gateway.dialect import dialect_of_agent
from galerne.gateway.keys import MOST_KEYS, KeyCache
from galerne.gateway.metrics import GatewayMetrics
from galerne.gateway.reservations import MOST_BOOKS, Reservations
from galerne.gateway.terms import MOST_TERMS, Terms, TermsCache
from galerne.governance import Actor
from galerne.governance.actors import ActorKind
from galerne.identity import KeyGrant
from galerne.kernel import Database, Ids, ManualClock, Unauthenticated, Unavailable, later
from galerne.metering import PoolSpec
from tests.gateway.installation import model

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PLAN = Plan(id="developer", weight=1, tier="standard", description="")


async def test_a_full_cache_of_keys_takes_what_the_guide_says() -> None:
    async def read(presented: str) -> KeyGrant:
        return _grant(presented)

    keys = KeyCache(read, ManualClock(NOW), staleness_s=1.0, outage_s=60)
    for number in range(1_000):
        await keys.resolve(f"{number}")
    taken = await _bytes_taken(lambda number: keys.resolve(f"gal_{number}"), 1_000)
    assert taken / 1_000 * MOST_KEYS < 10e6


async def test_a_full_cache_of_terms_takes_what_the_guide_says() -> None:
    async def read(whose: tuple[KeyGrant, Any]) -> Terms:
        key_id = whose[0].key_id
        requests = PoolSpec(f"rpm:{key_id}", "requests", "minute", 60_000)
        return Terms((requests, PoolSpec(f"tpm:{key_id}", "tokens", "minute", 60_000)), PLAN)

    terms, one = TermsCache(read, ManualClock(NOW), outage_s=60), model("normal")
    await terms.of(_grant("first"), one)
    grants = [_grant(f"{number}") for number in range(1_000)]
    taken = await _bytes_taken(lambda number: terms.of(grants[number], one), 1_000)
    assert taken / 1_000 * MOST_TERMS < 10e6


def _grant(name: str) -> KeyGrant:
    key_id = f"key-{name:0>32}"
    actor = Actor(ActorKind.API_KEY, key_id, f"org-{name:0>32}", None)
    return KeyGrant(key_id, f"gal_{name[:4]}", actor, False, None, None, None, None)


async def _bytes_taken(act: Callable[[int], Any], times: int) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(times):
            await act(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_counters_and_histograms_have_no_more_label_sets_than_stated() -> None:
    numbers = Cells(Family("a", "counter", "", ("model",)), Number)
    histograms = Cells(Family("b", "histogram", "", ("model",)), lambda: Buckets((1.0,)))
    for number in range(3 * MOST_CELLS):
        numbers.at(f"m{number}").inc()
        histograms.at(f"m{number}").observe(number)
    assert len(numbers.items()) == MOST_CELLS + 1
    assert len(histograms.items()) == MOST_HISTOGRAMS + 1
    assert sum(cell.value for _, cell in numbers.items()) == 3 * MOST_CELLS


async def test_names_of_clients_are_remembered_shortened_and_few_of_them() -> None:
    async def ask(number: int) -> None:
        assert dialect_of_agent(f"openai/{number}" + "x" * 60_000) == "openai"

    assert await _bytes_taken(ask, 1_000) < 256 * 1_000


def test_limits_in_use_are_no_more_than_stated() -> None:
    metrics = GatewayMetrics(CollectorRegistry())
    reservations = Reservations("holder", Ids(), ManualClock(NOW), metrics, lease_s=60, wake=lambda: None)
    reservations.standings(_terms_of(MOST_BOOKS))
    with pytest.raises(Unavailable):
        reservations.standings(_terms_of(MOST_BOOKS + 1))
    orders = reservations.tick() or reservations.orders()
    assert orders is not None
    assert not reservations._books, "a limit that nothing was reserved from lately is forgotten"


def _terms_of(pools: int) -> Terms:
    return Terms(tuple(PoolSpec(f"rpm:{number}", "requests", "minute", 60) for number in range(pools)), PLAN)


async def test_a_timer_that_was_taken_back_or_went_off_holds_nothing() -> None:
    class Watched:
        def act(self) -> None:
            self.acted = True

    gc.disable()
    try:
        for cancelled in (True, False):
            one = Watched()
            timer, seen = later(0.01, one.act), weakref.ref(one)
            if cancelled:
                timer.cancel()
            else:
                await asyncio.sleep(0.2)
                assert one.acted
            del one
            assert seen() is None
    finally:
        gc.enable()


def test_an_error_that_is_kept_is_one_that_was_never_raised() -> None:
    try:
        raise Unauthenticated("no", code="revoked_api_key", param="key", retry_after_s=3)
    except Unauthenticated as error:
        kept = error.again()
    assert kept.__traceback__ is None
    assert (str(kept), kept.code, kept.param, kept.retry_after_s) == ("no", "revoked_api_key", "key", 3)
    assert type(kept) is Unauthenticated


async def test_a_connection_keeps_no_more_than_a_megabyte_of_pages(sqlite: Database) -> None:
    for opened in (sqlite.reading, sqlite.transaction):
        async with opened() as session:
            connection = await session.connection()
            assert (await connection.exec_driver_sql("PRAGMA cache_size")).scalar() == -1024
