"""Organisations that pay, with their keys and limits, made in the database of a running server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from galerne.billing import NewRates, set_rates
from galerne.identity import (
    NewKey,
    NewOrganisation,
    create_key,
    create_organisation,
    find_installation_admin,
    operator_in,
    resolve_key,
)
from galerne.kernel import Database, Ids, SystemClock
from galerne.ledger import AccountKind, Balance, Grant, accounts_of, check_books, grant_credit
from galerne.metering import NewLimit, set_operator_limit
from galerne.metering.tables import UsageEventRow
from galerne.models import ExternalModel, add_external
from tests.serving import Server

CURRENCY = "EUR"
_clock = SystemClock()
_ids = Ids()


@dataclass(frozen=True)
class Tenant:
    """An organisation and one key of it."""

    organisation_id: str
    key_id: str
    secret: str


@dataclass(frozen=True)
class Used:
    """The sums of what one organisation used."""

    requests: int
    tokens: int
    output_tokens: int


@asynccontextmanager
async def database_of(server: Server) -> AsyncGenerator[Database]:
    """The database of a running server, beside it."""
    default = f"sqlite+aiosqlite:///{server.data / 'galerne.db'}"
    database = Database(server.environment.get("GALERNE_DATABASE_URL", default), pool_size=1)
    try:
        yield database
    finally:
        await database.close()


async def add_model(database: Database, name: str, url: str, rates: tuple[int, int, int] = (0, 0, 0)) -> None:
    """A model at `url`, with the price of 1,000,000 tokens of input, cached input and output in nano-units."""
    async with database.transaction() as session:
        operator = await find_installation_admin(session)
        await add_external(session, operator, ExternalModel(name=name, url=url), _clock)
        if any(rates):
            new = NewRates(
                currency=CURRENCY,
                input_nano_per_million=rates[0],
                cached_nano_per_million=rates[1],
                output_nano_per_million=rates[2],
            )
            await set_rates(session, operator, name, new, _ids, _clock)


async def add_tenant(database: Database, credit_nano: int = 0, **limits: Any) -> Tenant:
    """An organisation with so much credit, and a limit on it if `quantity`, `window` and `amount` say one."""
    async with database.transaction() as session:
        organisation, first = await create_organisation(session, NewOrganisation(name="tenant"), _ids, _clock)
        operator = await operator_in(session, organisation.id)
        grant = await resolve_key(session, first.secret, _clock.now())
        made = await create_key(session, grant.actor, NewKey(name="test"), _ids, _clock)
        if credit_nano:
            credit = Grant(id=_ids.new(), amount_nano=credit_nano, currency=CURRENCY, reason="test")
            await grant_credit(session, operator, credit, _clock)
        if limits:
            limit = NewLimit(scope="organisation", scope_id=organisation.id, **limits)
            await set_operator_limit(session, operator, limit, _clock)
        return Tenant(organisation.id, made.row.id, made.secret)


async def prepaid(database: Database, tenant: Tenant) -> Balance:
    """The organisation's credit."""
    async with database.reading() as session:
        balances = await accounts_of(session, tenant.organisation_id)
    return next(each for each in balances if each.account.kind is AccountKind.PREPAID)


async def used(database: Database, tenant: Tenant) -> Used:
    """What the organisation's usage events add up to."""
    row = UsageEventRow
    tokens = row.input_tokens + row.cached_tokens + row.output_tokens
    sums = select(func.count(), func.coalesce(func.sum(tokens), 0), func.coalesce(func.sum(row.output_tokens), 0))
    async with database.reading() as session:
        found = (await session.execute(sums.where(row.organisation_id == tenant.organisation_id))).one()
    return Used(*map(int, found))


async def problems(database: Database) -> list[str]:
    """What is wrong with the books."""
    async with database.reading() as session:
        return await check_books(session)
