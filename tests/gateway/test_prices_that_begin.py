"""Prices that change while gateways keep older ones: all charge what rating finds, from the first request on."""

from datetime import UTC, datetime, timedelta

import pytest

from galerne.billing import (
    Customer,
    Match,
    NewRate,
    PriceChange,
    QuoteAsk,
    Rater,
    UsedTokens,
    assign_price_list,
    change_prices,
    create_price_list,
    quote_script,
    read_book,
)
from galerne.gateway.terms import TERMS_STALENESS_S, Terms, TermsCache, terms_reader
from galerne.gateway.wire.answer import TokenCount
from galerne.governance import SYSTEM
from galerne.identity import KeyGrant, NewOrganisation, create_organisation, operator_in, resolve_key
from galerne.kernel import Database, Ids, ManualClock, NotFound, Reader, Settings, open_reader
from galerne.ledger import Grant, grant_credit
from galerne.models import publish_embedded
from tests.gateway.installation import model

BEGIN = datetime(2026, 11, 23, 9, tzinfo=UTC)
STEP_S = 0.7
COUNT = TokenCount(7, 4, 10)
MODEL = model("priced")
FIRST_READ_S = (0.0, 1.1, 2.3, 4.9)  # a gateway reads when its first request comes, and so do its neighbours
_ids = Ids()


def rates(nano: int, *, after_s: float | None = None, list_id: str = "default") -> PriceChange:
    at = None if after_s is None else BEGIN + timedelta(seconds=after_s)
    return PriceChange(
        rates=tuple(
            NewRate(match=Match(token_class=name), currency="EUR", nano=nano * 10**6, effective_from=at)
            for name in ("input", "cached", "output")
        ),
        list_id=list_id,
    )


async def paying_grant(database: Database, clock: ManualClock) -> KeyGrant:
    async with database.transaction() as session:
        organisation, first = await create_organisation(session, NewOrganisation(name="payer"), _ids, clock)
        grant = Grant(id=_ids.new(), amount_nano=10**12, currency="EUR", reason="test")
        await grant_credit(session, await operator_in(session, organisation.id), grant, clock)
        return await resolve_key(session, first.secret, clock.now())


def charged(terms: Terms, at: datetime) -> int | None:
    """What a gateway with these terms takes for a request that begins now; None for nothing, as there is no price."""
    found = terms.rates_for("chat.completions", "standard", "", at)
    assert (found is None) == (terms.accounts is None), "whatever has a price is paid"
    return None if found is None else COUNT.total * found.input_nano_per_million // found.per


async def quoted(reader: Reader, organisation_id: str, at: datetime) -> int | None:
    """What that request will cost by a quote; None where there is no price."""
    ask = QuoteAsk(model_id=MODEL.id, input_tokens=11, cached_tokens=4, output_tokens=10)
    try:
        return (await reader.run(quote_script(organisation_id, ask, at))).expected_nano
    except NotFound:
        return None


@pytest.mark.usefixtures("notice")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([(5, rates(30))], id="a first price"),
        pytest.param([(-60, rates(20)), (5, rates(30))], id="another price"),
        pytest.param([(-60, rates(20)), (5, rates(30)), (6, rates(40))], id="two in a row"),
        pytest.param([(-60, rates(20)), (5, rates(30, after_s=7))], id="a price that was to begin too soon"),
        pytest.param([(-60, rates(20)), (-50, rates(30, after_s=7.5))], id="a price that was set long ago"),
        pytest.param([(-60, rates(20)), (-60, rates(5, list_id="own")), (5, "own")], id="a price list"),
    ],
)
async def test_every_gateway_charges_what_rating_finds_and_a_quote_says(
    database: Database, changes: list[tuple[float, PriceChange | str]]
) -> None:
    clock = ManualClock(BEGIN - timedelta(seconds=60))
    grant = await paying_grant(database, clock)
    organisation_id = grant.actor.organisation_id
    reader = open_reader(database.url)
    gateways = [
        (TermsCache(terms_reader(reader, Settings(), clock), clock, outage_s=60.0), begin_s) for begin_s in FIRST_READ_S
    ]
    async with database.transaction() as session:
        await create_price_list(session, SYSTEM, "own", "own", clock)
        await publish_embedded(session, [MODEL], clock)
    waiting = sorted(changes, key=lambda change: change[0])
    taken: list[tuple[datetime, int | None]] = []
    for number in range(50):
        at_s = number * STEP_S
        while waiting and waiting[0][0] <= at_s:
            when_s, change = waiting.pop(0)
            clock.current = BEGIN + timedelta(seconds=when_s)
            async with database.transaction() as session:
                if isinstance(change, str):
                    await assign_price_list(session, SYSTEM, ("organisation", organisation_id), change, clock)
                else:
                    await change_prices(session, SYSTEM, change, _ids, clock)
        clock.current, clock.elapsed_s = BEGIN + timedelta(seconds=at_s), at_s
        for terms, begin_s in gateways:
            if begin_s <= at_s:
                taken.append((clock.now(), charged(await terms.of(grant, MODEL), clock.now())))
                assert await quoted(reader, organisation_id, clock.now()) == taken[-1][1], at_s
    await reader.close()
    async with database.reading() as session:
        book = await read_book(session)
    customer = Customer(organisation_id, grant.plan, accounts=("EUR",))
    rater = Rater(book, lambda _, __: customer)
    for at, nano in taken:
        used = UsedTokens("e", at, None, "k", organisation_id, MODEL.id, "chat.completions", "standard", "", 7, 4, 10)
        assert rater.rate([used]).nano_of.get("e") == nano, at - BEGIN
    assert len({nano for _, nano in taken}) > 1, "the price changed while there were requests"


def test_prices_are_written_sooner_than_gateways_forget(notice: timedelta) -> None:
    assert notice.total_seconds() >= TERMS_STALENESS_S + 5, "5 s for the commit, and for clocks that differ"
