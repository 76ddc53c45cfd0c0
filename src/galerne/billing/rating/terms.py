"""Under which plan and in which currencies each organisation's use is rated, and since when: recorded as it changes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.book import PriceBook
from galerne.billing.prices.token_prices import Customer
from galerne.billing.rating.rater import Rater
from galerne.billing.tables import PriceTermsRow
from galerne.identity import PlanChange, plan_changes, plans_by_organisation
from galerne.kernel import Insert, Script, run_in_session
from galerne.ledger import AccountKind, currencies_by_organisation

__all__ = ["History", "rater_by", "rater_of", "refresh_terms", "terms_of"]

History = dict[str, list[tuple[datetime, Customer]]]
"""Whose prices organisations had, each from when on, in order."""

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
_TERMS = cast(SqlTable, PriceTermsRow.__table__)


async def refresh_terms(session: AsyncSession, organisations: set[str], now: datetime) -> History:
    """Record what changed of these organisations since it was last looked at; their terms, that among them.

    A plan counts from the moment in which it was given, a currency from when it is found. What counted before anything
    was recorded is what is found now: nobody else could say.
    """
    history = await terms_of(session, organisations)
    plans, changes = await plans_by_organisation(session), await plan_changes(session, organisations)
    currencies = await currencies_by_organisation(session, AccountKind.PREPAID)
    rows: list[tuple[object, ...]] = []
    for organisation_id in sorted(organisations & plans.keys()):
        customer = Customer(organisation_id, plans[organisation_id], accounts=currencies.get(organisation_id, ()))
        known = history.setdefault(organisation_id, [])
        for begin, terms in _news(known, changes.get(organisation_id, ()), customer, now):
            known.append((begin, terms))
            first, *others = terms.accounts or (None,)
            rows.append((organisation_id, begin, terms.plan, first, ",".join(map(str, others))))
    await run_in_session(session, _written(rows))
    return history


def _news(
    known: Sequence[tuple[datetime, Customer]], changes: Sequence[PlanChange], customer: Customer, now: datetime
) -> list[tuple[datetime, Customer]]:
    found: list[tuple[datetime, Customer]] = []
    if not known:
        found.append((_ALWAYS, customer._replace(plan=changes[0].before if changes else customer.plan)))
    begin, terms = (*known, *found)[-1]
    for change in changes:
        if begin < change.at <= now and change.plan != terms.plan:
            begin, terms = change.at, terms._replace(plan=change.plan)
            found.append((begin, terms))
    if terms != customer and begin < now:
        found.append((now, customer))
    return found


async def terms_of(session: AsyncSession, organisations: set[str]) -> History:
    """What is recorded of these organisations."""
    history: History = {}
    for row in await session.execute(select(_TERMS).order_by(_TERMS.c.effective_from)):
        if row.organisation_id in organisations:
            others = row.other_currencies.split(",") if row.other_currencies else ()
            accounts = () if row.currency is None else (row.currency, *others)
            customer = Customer(row.organisation_id, row.plan, accounts=accounts)
            history.setdefault(row.organisation_id, []).append((row.effective_from, customer))
    return history


async def rater_of(session: AsyncSession, book: PriceBook, organisations: set[str]) -> Rater:
    """A rater by that book, for these customers as they are recorded to have been at each time."""
    return rater_by(book, await terms_of(session, organisations))


def rater_by(book: PriceBook, history: History) -> Rater:
    """A rater by that book, for customers as they were at each time."""

    def customer_at(organisation_id: str, at: datetime) -> Customer:
        began = [customer for begin, customer in history.get(organisation_id, ()) if begin <= at]
        return began[-1] if began else Customer(organisation_id, "")

    return Rater(book, customer_at, {begin for each in history.values() for begin, _ in each})


def _written(rows: list[tuple[object, ...]]) -> Script[None]:
    if rows:
        yield Insert(_TERMS, ("organisation_id", "effective_from", "plan", "currency", "other_currencies"), rows)
