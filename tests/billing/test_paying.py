"""Organisations with accounts in several currencies: gateway, quote and rating choose the same one."""

import asyncio
from datetime import timedelta

import pytest

from galerne.billing import (
    Customer,
    Match,
    NewRate,
    PriceBook,
    PriceChange,
    Rate,
    Rater,
    UsedTokens,
    change_prices,
    paying,
    quote,
    rate_batch,
    rating_counts,
)
from galerne.billing.prices.quotes import QuoteAsk
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from galerne.metering import record
from tests.billing.books import START, rate
from tests.billing.rating.buckets import buckets_in
from tests.billing.rating.test_in_the_database import event
from tests.identity.tenants import NOW


def priced(number: int, currency: str, model: str) -> list[Rate]:
    found = [rate(10**6, number * 10 + index, model_id=model, token_class=name) for index, name in enumerate(CLASSES)]
    return [
        Rate(
            id=each.id,
            list_id=each.list_id,
            version=each.version,
            currency=currency,
            match=each.match,
            effective_from=each.effective_from,
            nano=each.nano,
            per=each.per,
        )
        for each in found
    ]


CLASSES = ("input", "cached", "output")
BOOK = PriceBook(
    [*priced(1, "EUR", "large"), *priced(2, "USD", "large"), *priced(3, "USD", "small"), *priced(4, "GBP", "tiny")]
)


@pytest.mark.parametrize(
    ("accounts", "model", "currency"),
    [
        (("EUR", "USD"), "large", "EUR"),
        (("USD", "EUR"), "large", "USD"),
        (("EUR", "USD"), "small", "USD"),
        (("EUR",), "small", None),
        ((), "large", None),
    ],
)
def test_it_pays_from_the_first_account_whose_currency_has_a_price(
    accounts: tuple[str, ...], model: str, currency: str | None
) -> None:
    customer = Customer("org", "free", accounts=accounts)
    assert paying(BOOK, customer, model, START).currency == currency
    used = UsedTokens("e", START, None, "k", "org", model, "chat.completions", "standard", "", 1, 1, 1)
    rated = Rater(BOOK, lambda _organisation, _at: customer).rate([used])
    assert not rated.unmatched
    found = quote(BOOK, customer, QuoteAsk(model_id=model, input_tokens=1), START)
    assert found is not None
    assert {each.currency for each in rated.usage} == {found.currency}
    assert currency in (None, found.currency)


async def test_raters_at_once_rate_every_event_once(database: Database) -> None:
    clock = ManualClock(NOW)
    rates = tuple(NewRate(match=Match(token_class=name), currency="EUR", nano=10**6) for name in ("input", "output"))
    async with database.transaction() as session:
        await change_prices(session, SYSTEM, PriceChange(rates=rates), Ids(), clock)
        await record(session, [event(at=NOW + timedelta(minutes=n), tokens=(1, 0, 1)) for n in range(40)])

    async def run() -> int:
        rated, after, more = 0, "", True
        while more:
            async with database.transaction() as session:
                batch = await rate_batch(session, clock, after, limit=7)
            rated, after, more = rated + batch.rated, batch.last_id, batch.more
        return rated

    assert sum(await asyncio.gather(run(), run(), run())) == 40
    async with database.reading() as session:
        assert (await rating_counts(session))["rated"] == 40
        assert sum(each.nano for each in (await buckets_in(session, "2026-11")).values()) == 80
