"""However usage comes in, permuted, repeated, split, late after a part was rated: the same invoices, to the root."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galerne.billing import Match, NewRate, PriceChange, Step, change_prices, rate_batch
from galerne.billing.invoices import CloseOrder, close_billing, frozen_document, invoice_lines, list_invoices
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from galerne.ledger import all_accounts, check_books
from galerne.metering import UsageEvent, record
from tests.billing.invoices.customers import CLOSING
from tests.billing.lockstep.world import START, Services, World, world_in
from tests.metering.events import event

EXAMPLES = {"sqlite": 12, "postgresql": 4}
CLASSES: tuple[Any, ...] = ("input", "cached", "output")
used = st.tuples(
    st.booleans(),
    st.sampled_from(["large", "small"]),
    st.sampled_from(["standard", "priority", "batch"]),
    st.integers(0, 28 * 86_400),
    st.tuples(*(st.one_of(st.integers(0, 9), st.integers(0, 2_000_000)) for _ in CLASSES)),
)


@dataclass(frozen=True)
class Stream:
    """Deliveries in their order: each the indices of its events, and by how many at once is rated then, if at all."""

    deliveries: list[tuple[list[int], int | None]]


@st.composite
def streams(draw: st.DrawFn, size: int) -> Stream:
    order = draw(st.permutations([*range(size), *draw(st.lists(st.integers(0, size - 1), max_size=size))]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=4)) | {0, len(order)})
    parts = [order[begin:end] for begin, end in pairwise(cuts)]
    return Stream([(part, draw(st.none() | st.integers(1, 7))) for part in parts])


def events_of(world: World, drawn: list[Any]) -> list[UsageEvent]:
    found: list[UsageEvent] = []
    for number, (owner, model, tier, second, tokens) in enumerate(drawn):
        at = START + timedelta(seconds=second)
        what = dict(zip(("input_tokens", "cached_tokens", "output_tokens"), tokens, strict=True))
        name = f"{int(at.timestamp() * 1000):012x}7{number:019x}"
        organisation = world.prepaid if owner else world.owing
        found.append(event(id=name, organisation_id=organisation, model=model, tier=tier, started_at=at, **what))
    return found


def delivered(world: World, events: list[UsageEvent], stream: Stream) -> list[Any]:
    """The month's invoices after that stream, all that they say, and the books."""
    services = Services(world)
    services.clock.current = CLOSING
    for part, limit in stream.deliveries:
        batch = [events[index] for index in part]
        services.act(lambda session, batch=batch: record(session, batch))
        if limit is not None:
            services.act(lambda session, limit=limit: rate_batch(session, services.clock, limit=limit))
    order = CloseOrder(period="2026-10")
    report = services.wait(close_billing(services.database, SYSTEM, order, services.house.parts()))
    assert report.is_done
    found = services.look(said)
    services.close()
    return found


async def said(session: Any) -> list[Any]:
    assert await check_books(session) == []
    found: list[Any] = [{each.account.id: each.credit_nano for each in await all_accounts(session)}]
    for each in await list_invoices(session, None):
        amounts = (each.number, each.organisation_id, each.state, each.net_minor, each.tax_minor, each.due_minor)
        frozen = (await frozen_document(session, SYSTEM, each.id)).document if each.number else None
        found.append((amounts, each.usage_root, each.usage_size, await invoice_lines(session, each.id), frozen))
    return found


async def priced(url: str) -> None:
    database = Database(url)
    steps = (Step(above=1_000_000, nano=300_000_007),)
    rates = [
        NewRate(
            match=Match(token_class=kind, model_id=model),
            currency="EUR",
            nano=400_000_009 + number,
            effective_from=START,
            volume="graduated" if number else None,
            steps=steps if number else (),
        )
        for model in ("large", "small")
        for number, kind in enumerate(CLASSES)
    ]
    async with database.transaction() as session:
        change = PriceChange(rates=tuple(rates), retroactive=True)
        await change_prices(session, SYSTEM, change, Ids(), ManualClock(START))
    await database.close()


@pytest.mark.slow_ok("two databases for each example, and a month is closed in both")
def test_the_same_invoices_come_of_a_stream_in_any_order_repeated_and_in_parts(
    database_url: str, tmp_path: Path
) -> None:
    with asyncio.Runner() as runner:
        world = world_in(runner, database_url, tmp_path)
        runner.run(priced(database_url))

        @settings(
            max_examples=EXAMPLES["sqlite" if database_url.startswith("sqlite") else "postgresql"],
            deadline=None,
            suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]  # the enum's own members
        )
        @given(st.data())
        def same(data: st.DataObject) -> None:
            drawn = data.draw(st.lists(used, min_size=1, max_size=25))
            events = events_of(world, drawn)
            whole = delivered(world, events, Stream([(list(range(len(events))), None)]))
            assert delivered(world, events, data.draw(streams(len(events)))) == whole

        same()
