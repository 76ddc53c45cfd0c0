"""What the lockstep machine runs on: an installation, copied for each example, and its services as they are called."""

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]  # it has none
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.reading import read_book
from galerne.billing.prices.token_prices import Customer, ModelPrices
from galerne.gateway.commit import Commit, commit_script
from galerne.gateway.settled import Flight, Payment, Settled
from galerne.governance import SYSTEM
from galerne.journal import Follower, list_keys
from galerne.kernel import Database, Ids, ManualClock, Script, Settings, run_in_session
from galerne.ledger import AccountKind, customer_account, house_account, open_account_script
from tests.billing.invoice_usage.houses import Installation
from tests.billing.invoices.customers import House, house_in
from tests.flights import ended, flight_of

START = datetime(2026, 10, 2, tzinfo=UTC)
_copies = itertools.count()
_connect = cast(Any, asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]  # asyncpg is untyped


@dataclass
class World:
    """An installation with two models, a customer with an account of credit and one that is billed afterwards."""

    runner: asyncio.Runner
    prepared: str
    folder: Path
    prepaid: str
    owing: str

    def copy(self) -> str:
        """The address of a fresh copy."""
        place, name = make_url(self.prepared), f"copy_{next(_copies)}"
        if place.get_backend_name() == "sqlite":
            path = self.folder / f"{name}.db"
            shutil.copy(str(place.database), path)
            return f"sqlite+aiosqlite:///{path}"
        name = f"{place.database}_{name}"
        self.runner.run(_execute(self.prepared, f"CREATE DATABASE {name} TEMPLATE {place.database}"))
        return place.set(database=name).render_as_string(hide_password=False)

    def remove(self, url: str) -> None:
        """A copy is no longer needed."""
        place = make_url(url)
        if place.get_backend_name() == "sqlite":
            for path in self.folder.glob(f"{Path(str(place.database)).name}*"):
                path.unlink()
        else:
            self.runner.run(_execute(self.prepared, f"DROP DATABASE {place.database} WITH (FORCE)"))


def world_in(runner: asyncio.Runner, url: str, folder: Path) -> World:
    """The installation, prepared in the database at `url`."""
    return runner.run(_prepared(runner, url, folder))


async def _prepared(runner: asyncio.Runner, url: str, folder: Path) -> World:
    database = Database(url)
    house = await house_in(database, START - timedelta(days=1), {"large": None, "small": None})
    prepaid, owing = await house.customer("prepaid"), await house.customer("owing")
    account = customer_account(AccountKind.PREPAID, prepaid, "EUR")
    kinds = (AccountKind.CASH_CLEARING, AccountKind.REVENUE)
    async with database.transaction() as session:
        for each in (account, *(house_account(kind, "EUR") for kind in kinds)):
            await run_in_session(session, open_account_script(each, house.clock.now()))
    await database.close()
    return World(runner, url, folder, prepaid, owing)


async def _execute(url: str, statement: str) -> None:
    server = make_url(url).set(drivername="postgresql", database="postgres")
    connection = await _connect(server.render_as_string(hide_password=False))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class Services:
    """One copy, and the services of the product as the machine calls them: each call is a transaction."""

    def __init__(self, world: World) -> None:
        self.world, self.url = world, world.copy()
        self.database, self.clock, self.ids = Database(self.url), ManualClock(START), Ids()
        self.house = House(self.database, self.clock, self.ids)
        folder = world.folder / f"keys-{next(_copies)}"
        folder.mkdir()
        self.installation = Installation(self.house, Settings().with_data(folder))
        self.numbers = itertools.count(1)
        self.account = customer_account(AccountKind.PREPAID, world.prepaid, "EUR").id
        self.revenue = house_account(AccountKind.REVENUE, "EUR").id
        self.operator = replace(SYSTEM, organisation_id=world.prepaid)

    def wait(self, work: Awaitable[Any]) -> Any:
        async def done() -> Any:
            return await work

        return self.world.runner.run(done())

    def act(self, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            async with self.database.transaction() as session:
                return await work(session)

        return self.wait(run())

    def look(self, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            async with self.database.reading() as session:
                return await work(session)

        return self.wait(run())

    def script(self, script: Script[Any]) -> Any:
        return self.act(lambda session: run_in_session(session, script))

    def commit(self, *settled: Settled) -> None:
        """Requests that ended, in one commit, as the gateway writes them."""
        self.script(commit_script(Commit(settled=settled)))

    def flight(self, owner: str, model: str, tier: str, at: datetime, payment: Payment | None = None) -> Flight:
        """A request that began then, at the prices that the gateway knows now."""
        book = self.look(read_book)
        accounts = ("EUR",) if owner == self.world.prepaid else ()
        prices = ModelPrices(book, Customer(owner, "free", None, accounts), model)
        request_id = f"{int(at.timestamp() * 1000):012x}7{next(self.numbers):019x}"
        rates = prices.rates("chat.completions", tier, "", at)
        return flight_of(request_id, owner, at, model=model, tier=tier, rates=rates, payment=payment)

    def ended(self, flight: Flight, tokens: tuple[int, int, int]) -> Settled:
        """What the gateway writes at its end."""
        return ended(flight, tokens, self.clock.now())

    def sign(self) -> Any:
        """Sign the journal; the keys to check it with."""
        self.wait(Follower(self.database, self.installation.settings, self.clock, SYSTEM).checkpoint())
        return [each.key for each in self.look(list_keys)]

    def close(self) -> None:
        """Give the copy back."""
        self.wait(self.database.close())
        self.world.remove(self.url)
