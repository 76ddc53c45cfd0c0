"""Quotes as they are read: what counts in that moment, whatever was changed just before, on both databases."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galerne.billing import (
    Customer,
    Match,
    NewModifier,
    NewRate,
    PriceChange,
    Quote,
    QuoteAsk,
    assign_price_list,
    book_script,
    change_prices,
    create_price_list,
    quote,
    quote_now,
    quote_script,
    read_book,
)
from galerne.governance import SYSTEM
from galerne.identity import (
    NewOrganisation,
    OrganisationChange,
    bootstrap,
    change_organisation,
    create_organisation,
    operator_in,
)
from galerne.kernel import Database, Ids, ManualClock, NotFound, Reader, open_reader, run_in_session
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
    """One organisation's, of two models and an alias that means one of them."""

    database: Database
    reader: Reader
    clock: ManualClock
    organisation_id: str
    models: tuple[str, str]

    def __post_init__(self) -> None:
        self.customer = Customer(self.organisation_id, "free")
        self.meant = self.models[0]
        self.name = f"{self.models[0]}-latest"

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
        self.customer = self.customer._replace(plan=plan)

    async def account(self, session: Any, currency: str) -> None:
        opened_account = customer_account(AccountKind.PREPAID, self.organisation_id, currency)
        await run_in_session(session, open_account_script(opened_account, self.clock.now()))
        accounts = tuple(sorted({*self.customer.accounts, currency}))
        self.customer = self.customer._replace(accounts=accounts)

    async def alias(self, session: Any, index: int) -> None:
        await self.publish(session, index)
        self.meant = self.models[index]

    async def publish(self, session: Any, index: int) -> None:
        names = {0: (), 1: ()} | {index: (self.name,)}
        models = [model(self.models[each], engine="llamacpp", aliases=aliases) for each, aliases in names.items()]
        await publish_embedded(session, models, self.clock)

    async def check(self) -> None:
        now = self.clock.now()
        asked = QuoteAsk(model_id=self.name, input_tokens=7, cached_tokens=2, output_tokens=3, tier="priority")
        read = await found_by(self.reader.run(quote_script(self.organisation_id, asked, now)))
        async with self.database.reading() as session:
            assert await found_by(quote_now(session, self.organisation_id, asked, now)) == read
            book = await read_book(session)
        assert read == quote(book, self.customer, replace(asked, model_id=self.meant), now)


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


async def begun(database: Database, reader: Reader, clock: ManualClock) -> Story:
    """One with models and an organisation of its own, for all examples share a database."""
    async with database.transaction() as session:
        made, _ = await create_organisation(session, NewOrganisation(name="asks"), IDS, clock)
        story = Story(database, reader, clock, made.id, (f"first-{made.id}", f"second-{made.id}"))
        await story.publish(session, 0)
        for number, (list_id, currency) in enumerate((("default", "EUR"), ("default", "USD"), ("team", "EUR"))):
            await story.price(session, 2 * number + 1, list_id, currency, None)
    story.wait(10.0)
    return story


@pytest.mark.usefixtures("notice")
def test_a_quote_is_what_counts_in_that_moment(database_url: str) -> None:
    with asyncio.Runner() as runner:
        database, clock = Database(database_url), ManualClock(NOW)
        reader = open_reader(database.url)
        runner.run(prepared(database))

        async def told(drawn: list[tuple[Any, float]]) -> None:
            story = await begun(database, reader, clock)
            for action, wait_s in drawn:
                await story.act(*action)
                await story.check()
                story.wait(wait_s)
                await story.check()

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(steps, min_size=1, max_size=8))
        def agrees(drawn: list[tuple[Any, float]]) -> None:
            runner.run(told(drawn))

        agrees()
        runner.run(reader.close())
        runner.run(database.close())


async def test_prices_of_other_customers_are_not_even_read(database: Database) -> None:
    clock = ManualClock(NOW)
    async with database.transaction() as session:
        await publish_embedded(session, [model("m", engine="llamacpp")], clock)
        await change_prices(session, SYSTEM, change("m", 10**9), IDS, clock)
        asking: list[str] = []
        for number in range(5):
            made, _ = await create_organisation(session, NewOrganisation(name="asks"), IDS, clock)
            asking.append(made.id)
            name = f"own-{number}"
            await create_price_list(session, SYSTEM, name, name, clock)
            await assign_price_list(session, SYSTEM, ("organisation", made.id), name, clock)
            modifiers = (NewModifier(kind="cached", ppm=number),)
            await change_prices(session, SYSTEM, replace(change("m", number, name), modifiers=modifiers), IDS, clock)
        whole = await read_book(session)
        own = await run_in_session(session, book_script(model_id="m", subjects=(asking[-1], "free")))
        nobodys = await run_in_session(session, book_script(model_id="m", subjects=("", "")))
    assert {each.list_id for each in whole.rates} > {"own-0", "own-4"}
    assert {each.list_id for each in own.rates} == {"default", "own-4"}
    assert {each.list_id for each in own.modifiers} == {"own-4"}
    assert {each.list_id for each in nobodys.rates} == {"default"}
