"""Organisations that pay for a model of the mock engine, and what each of their requests was charged."""

from dataclasses import dataclass

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
from galerne.ledger import AccountKind, Grant, TransferKind, accounts_of, check_books, grant_credit, statement_of

CREDIT_NANO = 10**12
_clock, _ids = SystemClock(), Ids()


@dataclass(frozen=True)
class Payer:
    """An organisation with credit, and a key of it."""

    organisation_id: str
    secret: str


async def set_price(database: Database, model: str, nano_per_token: tuple[int, int, int]) -> None:
    """What one token of input, of cached input and of output costs."""
    a_million = (nano_per_token[0] * 1_000_000, nano_per_token[1] * 1_000_000, nano_per_token[2] * 1_000_000)
    await set_price_of_a_million(database, model, a_million)


async def set_price_of_a_million(database: Database, model: str, nano: tuple[int, int, int]) -> None:
    """What a million tokens of input, of cached input and of output cost."""
    new = NewRates(
        currency="EUR",
        input_nano_per_million=nano[0],
        cached_nano_per_million=nano[1],
        output_nano_per_million=nano[2],
    )
    async with database.transaction() as session:
        await set_rates(session, await find_installation_admin(session), model, new, _ids, _clock)


async def new_payer(database: Database, plan: str = "developer") -> Payer:
    """An organisation with that plan and credit for everything that a test does."""
    async with database.transaction() as session:
        organisation, first = await create_organisation(session, NewOrganisation(name="payer", plan=plan), _ids, _clock)
        actor = (await resolve_key(session, first.secret, _clock.now())).actor
        made = await create_key(session, actor, NewKey(name="test"), _ids, _clock)
        grant = Grant(id=_ids.new(), amount_nano=CREDIT_NANO, currency="EUR", reason="test")
        await grant_credit(session, await operator_in(session, organisation.id), grant, _clock)
        return Payer(organisation.id, made.secret)


async def charged(database: Database, payer: Payer) -> dict[str, int]:
    """What was taken from the organisation's credit for each request, in nano-units; the books must be sound."""
    async with database.reading() as session:
        assert await check_books(session) == []
        (account,) = [
            each
            for each in await accounts_of(session, payer.organisation_id)
            if each.account.kind is AccountKind.PREPAID
        ]
        statement = await statement_of(session, payer.organisation_id, account.account.id, limit=1000)
    settled = {each.id: -each.change_nano for each in statement.lines if each.kind is TransferKind.SETTLE}
    assert sum(settled.values()) == account.debits_posted_nano == CREDIT_NANO - account.credit_nano
    return settled
