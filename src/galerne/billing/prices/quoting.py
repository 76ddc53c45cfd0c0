"""Quotes by what the database says now, as a script of a few small reads."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.quotes import Quote, QuoteAsk, quote
from galerne.billing.prices.reading import book_script
from galerne.billing.prices.token_prices import Customer
from galerne.identity import plan_of_script
from galerne.kernel import NotFound, Script, run_in_session
from galerne.ledger import prepaid_accounts_script
from galerne.models import find_model_script

__all__ = ["quote_now", "quote_script"]


def quote_script(organisation_id: str, ask: QuoteAsk, at: datetime, currency: str | None = None) -> Script[Quote]:
    """What a request will cost that organisation; `ask.model_id` may be an alias.

    In `currency`, or in that of a prepaid account. Raises `NotFound` for a model that is not, or if any of what is
    asked has no price. An organisation without a name ("") is nobody's: it has the default prices.
    """
    model_id = (yield from find_model_script(ask.model_id)).id
    customer = yield from _customer_script(organisation_id)
    book = yield from book_script(model_id=model_id, subjects=(organisation_id, customer.plan))
    found = quote(book, customer._replace(currency=currency), replace(ask, model_id=model_id), at)
    if found is None:
        raise NotFound(f"The model '{model_id}' has no price for that.", code="price_not_found", param="model")
    return found


async def quote_now(
    session: AsyncSession, organisation_id: str, ask: QuoteAsk, at: datetime, currency: str | None = None
) -> Quote:
    """The same in a session."""
    return await run_in_session(session, quote_script(organisation_id, ask, at, currency))


def _customer_script(organisation_id: str) -> Script[Customer]:
    if not organisation_id:
        return Customer("", "")
    plan = yield from plan_of_script(organisation_id)
    accounts = yield from prepaid_accounts_script(organisation_id)
    return Customer(organisation_id, plan, accounts=tuple(accounts))
