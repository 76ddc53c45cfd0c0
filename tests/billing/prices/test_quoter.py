"""Quotes of what is kept: as those read anew, but for what the docstring lets them know late, and bounded."""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galerne.billing import (
    MOST_QUOTED,
    PRICES_STALENESS_S,
    Customer,
    Match,
    NewRate,
    PriceChange,
    Quote,
    QuoteAsk,
    Quoter,
    assign_price_list,
    change_prices,
    create_price_list,
    quote,
    quote_now,
    read_book,
)
from galerne.billing.prices.quoter import MODEL_STALENESS_S
from galerne.governance import SYSTEM
from galerne.identity import (
    NewOrganisation,
    OrganisationChange,
    bootstrap,
    change_organisation,
    create_organisation,
    operator_in,
)
from galerne.kernel import Database, Ids, ManualClock, NotFound, run_in_session
from galerne.ledger import AccountKind, customer_account, open_account_script
from galerne.models import publish_embedded
from tests.gateway.installation import model
from tests.identity.tenants import NOW

EXAMPLES = 12
CLASSES: tuple[Any, ...] = ("input", "cached", "output")
IDS = Ids()

WAITS_S = (0.0, 0.5, 0.9, 1.0, 2.5, 4.0, 5.0)
actions = st.one_of(
    st.tuples(
        st.just("price"),
        st.integers(1, 9),
        st.sampled_from(["default", "team"]),
        st.sampled_from(["EUR", "USD"]),
        st.none() | st.integers(0, 20),
    ),
    st.tuples(st.just("plan"), st.sampled_from(["free", "team"])),
    st.tuples(st.just("account"), st.sampled_from(["EUR", "USD"])),
    st.tuples(st.just("alias"), st.sampled_from([0, 1])),
)
steps = st.tuples(actions, st.sampled_from(WAITS_S))


def change(model_id: str, nano: int, list_id: str = "default", currency: str = "EUR", begin: Any = None) -> PriceChange:
    rates = (
        NewRate(match=Match(token_class=name, model_id=model_id), currency=currency, nano=nano, effective_from=begin)
        for name in CLASSES
    )
    return PriceChange(rates=tuple(rates), list_id=list_id)


@dataclass
class Story:
    """One organisation's, of two models and an alias that means one of them; what counted when is kept."""

    database: Database
    clock: ManualClock
    organisation_id: str
    models: tuple[str, str]

    def __post_init__(self) -> None:
        self.quoter = Quoter(self.database, self.clock)
        self.customers = [(-1e9, Customer(self.organisation_id, "free"))]
        self.meanings = [(-1e9, self.models[0])]
        self.name = f"{self.models[0]}-latest"

    @property
    def customer(self) -> Customer:
        return self.customers[-1][1]

    async def act(self, kind: str, *what: Any) -> None:
        async with self.database.transaction() as session:
            await getattr(self, kind)(session, *what)

    def wait(self, seconds: float) -> None:
        self.clock.current += timedelta(seconds=seconds)
        self.clock.elapsed_s += seconds

    async def price(self, session: Any, nano: int, list_id: str, currency: str, after_s: int | None) -> None:
        begin = None if after_s is None else self.clock.now() + timedelta(seconds=after_s)
        for number, each in enumerate(self.models):
            made = change(each, (nano + number) * 10**9, list_id, currency, begin)
            await change_prices(session, SYSTEM, made, IDS, self.clock)

    async def plan(self, session: Any, plan: str) -> None:
        operator = await operator_in(session, self.organisation_id)
        await change_organisation(session, operator, OrganisationChange(plan=plan), self.clock)
        self.customers.append((self.clock.elapsed_s, self.customer._replace(plan=plan)))

    async def account(self, session: Any, currency: str) -> None:
        opened_account = customer_account(AccountKind.PREPAID, self.organisation_id, currency)
        await run_in_session(session, open_account_script(opened_account, self.clock.now()))
        accounts = tuple(sorted({*self.customer.accounts, currency}))
        self.customers.append((self.clock.elapsed_s, self.customer._replace(accounts=accounts)))

    async def alias(self, session: Any, index: int) -> None:
        await self.publish(session, index)
        self.meanings.append((self.clock.elapsed_s, self.models[index]))

    async def publish(self, session: Any, index: int) -> None:
        names = {0: (), 1: ()} | {index: (self.name,)}
        models = [model(self.models[each], engine="llamacpp", aliases=aliases) for each, aliases in names.items()]
        await publish_embedded(session, models, self.clock)

    async def check(self) -> bool:
        """Whether only one answer was right."""
        now, known = self.clock.now(), self.clock.elapsed_s
        asked = QuoteAsk(model_id=self.name, input_tokens=7, cached_tokens=2, output_tokens=3, tier="priority")
        told = await found_by(self.quoter.quote(self.organisation_id, asked))
        async with self.database.reading() as session:
            anew = await found_by(quote_now(session, self.organisation_id, asked, now))
            books = {each: await read_book(session, model_id=each) for each in self.models}
        right = [
            quote(books[meant], customer, replace(asked, model_id=meant), now)
            for customer in lately(self.customers, known - PRICES_STALENESS_S)
            for meant in lately(self.meanings, known - MODEL_STALENESS_S)
        ]
        assert anew == right[-1]
        assert told in right
        return all(each == anew for each in right)


def lately(history: list[tuple[float, Any]], since_s: float) -> list[Any]:
    """What counted at any time from then on, oldest first: each until the next began."""
    ends = [*(began_s for began_s, _ in history[1:]), float("inf")]
    return [value for (_, value), end_s in zip(history, ends, strict=True) if end_s > since_s]


async def found_by(asked: Awaitable[Quote]) -> Quote | None:
    try:
        return await asked
    except NotFound:
        return None


async def prepared(database: Database) -> None:
    clock = ManualClock(NOW - timedelta(hours=1))
    async with database.transaction() as session:
        await bootstrap(session, IDS, clock, None)
        await create_price_list(session, SYSTEM, "team", "for teams", clock)
        await assign_price_list(session, SYSTEM, ("plan", "team"), "team", clock)


async def begun(database: Database, clock: ManualClock) -> Story:
    """One with models and an organisation of its own, for all examples share a database."""
    async with database.transaction() as session:
        made, _ = await create_organisation(session, NewOrganisation(name="asks"), IDS, clock)
        story = Story(database, clock, made.id, (f"first-{made.id}", f"second-{made.id}"))
        await story.publish(session, 0)
        for number, (list_id, currency) in enumerate((("default", "EUR"), ("default", "USD"), ("team", "EUR"))):
            await story.price(session, 2 * number + 1, list_id, currency, None)
    story.wait(10.0)
    return story


@contextmanager
def opened(runner: asyncio.Runner, url: str) -> Iterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        runner.run(database.close())


@pytest.mark.usefixtures("notice")
def test_a_quote_of_what_is_kept_is_one_read_anew_or_of_what_counted_seconds_ago(database_url: str) -> None:
    with asyncio.Runner() as runner, opened(runner, database_url) as database:
        clock = ManualClock(NOW)
        runner.run(prepared(database))

        async def told(drawn: list[tuple[Any, float]]) -> None:
            story, certain = await begun(database, clock), True
            for action, wait_s in [*drawn, (("plan", "free"), 5.0)]:
                await story.act(*action)
                await story.check()
                story.wait(wait_s)
                certain = await story.check()
            assert certain, "after five seconds nothing is late"

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(steps, max_size=8))
        def agrees(drawn: list[tuple[Any, float]]) -> None:
            runner.run(told(drawn))

        agrees()


@pytest.mark.usefixtures("notice")
async def test_asking_again_reads_nothing_whatever_else_is_asked_of_that_model(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(NOW)
    await prepared(database)
    story = await begun(database, clock)
    first = await story.quoter.quote(story.organisation_id, QuoteAsk(model_id=story.models[0], input_tokens=7))
    monkeypatch.setattr(database, "reading", None)
    again = [
        await story.quoter.quote(story.organisation_id, QuoteAsk(model_id=story.models[0], **asked), currency)
        for asked, currency in (
            ({"input_tokens": 7}, None),
            ({"input_tokens": 7, "tier": "batch", "zone": "fr"}, "USD"),
            ({"quantities": {"output": 3}}, "EUR"),
        )
    ]
    assert again[0] == first
    assert [each.currency for each in again] == ["USD", "USD", "EUR"]


async def test_what_is_kept_is_bounded_and_takes_what_the_guide_says(database: Database) -> None:
    clock, most = ManualClock(NOW), 50
    await prepared(database)
    story = await begun(database, clock)
    async with database.transaction() as session:
        models = [model(f"m{number}", engine="llamacpp") for number in range(3 * most)]
        await publish_embedded(session, models, clock)
        rates = tuple(rate for each in models for rate in change(each.id, 10**9).rates)
        await change_prices(session, SYSTEM, PriceChange(rates=rates), IDS, clock)
    quoter = Quoter(database, clock, capacity=most)
    asks = [QuoteAsk(model_id=each.id, input_tokens=1) for each in models]
    for ask in asks[:most]:
        await quoter.quote(story.organisation_id, ask)
    gc.collect()
    tracemalloc.start()
    try:
        for ask in asks[most:]:
            await quoter.quote(story.organisation_id, ask)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken / most < 6_000, "as many as it holds, and no more"
    assert taken / most * MOST_QUOTED < 10e6
