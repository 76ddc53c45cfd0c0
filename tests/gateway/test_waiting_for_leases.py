"""Those who wait for a lease are served in the order in which they came, and by nobody's leave but the database's."""

import asyncio

from prometheus_client import CollectorRegistry

from galerne.billing import Plan
from galerne.gateway.metrics import GatewayMetrics
from galerne.gateway.reservations import Answers, Need, Orders, Reservations
from galerne.gateway.terms import Terms
from galerne.kernel import GalerneError, Ids, SystemClock
from galerne.metering import PoolSpec, Short, Take, Taken

DAY = PoolSpec("rule:key", "tokens", "day", 100)
TERMS = Terms((DAY,), Plan(id="p", weight=1, tier="standard", description=""))


def reservations() -> Reservations:
    metrics = GatewayMetrics(CollectorRegistry())
    return Reservations("me", Ids(), SystemClock(), metrics, lease_s=60, wake=lambda: None)


def granted(take: Take, amount: int) -> Taken:
    return Taken(take.pool.id, amount, 0, 1, None, take.expires_at_ms, "lease", amount)


async def asked(book: Reservations) -> Orders:
    await asyncio.sleep(0)
    orders = book.orders()
    assert orders is not None
    return orders


async def test_what_was_granted_to_those_who_wait_is_not_taken_by_one_who_comes_later() -> None:
    book = reservations()
    waiting = [asyncio.create_task(book.reserve(TERMS, Need(3, 0))) for _ in range(3)]
    orders = await asked(book)
    assert (orders.takes[0].least, orders.takes[0].need) == (3, 9)
    late = asyncio.create_task(book.reserve(TERMS, Need(3, 0)))
    await asyncio.sleep(0)
    book.done(orders, Answers(takes=[granted(orders.takes[0], 9)]))
    await asyncio.gather(*waiting)
    assert not late.done()
    refused = await asked(book)
    book.done(refused, Answers(takes=[Short(DAY.id, 0, 500, None)]))
    (outcome,) = await asyncio.gather(late, return_exceptions=True)
    assert isinstance(outcome, GalerneError)
    assert outcome.status == 429


async def test_one_who_needs_much_is_not_overtaken_for_ever_by_those_who_need_little() -> None:
    book = reservations()
    big = asyncio.create_task(book.reserve(TERMS, Need(8, 0)))
    small = [asyncio.create_task(book.reserve(TERMS, Need(1, 0))) for _ in range(4)]
    orders = await asked(book)
    book.done(orders, Answers(takes=[granted(orders.takes[0], 12)]))
    await asyncio.gather(big, *small)


async def test_a_request_that_is_given_up_while_it_waits_keeps_nothing() -> None:
    book = reservations()
    task = asyncio.create_task(book.reserve(TERMS, Need(5, 0)))
    orders = await asked(book)
    book.done(orders, Answers(takes=[granted(orders.takes[0], 5)]))
    task.cancel()  # granted, and not yet told
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    again = await book.reserve(TERMS, Need(5, 0))
    assert again.parts
