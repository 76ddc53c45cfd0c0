"""What use was worth, by key and workspace: sums over the hours of rated usage, for budgets, showback and contracts.

Use that has not been rated yet, or has no price, counts nothing. An hour belongs to the period in which it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.charges import Period
from galerne.billing.rating.sums import HOURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What requests of one key used and were worth, in nano-units of the currency that was asked for."""

    workspace_id: str | None
    key_id: str
    quantity: int
    nano: int


async def spent(session: AsyncSession, organisation_id: str, currency: str, period: Period) -> list[Spent]:
    """What an organisation's use in `period` was worth in `currency`, by key."""
    row = HOURS.c
    whose = (row.workspace_id, row.key_id)
    query = select(*whose, func.sum(row.quantity), func.sum(row.nano)).where(
        row.organisation_id == organisation_id,
        row.currency == currency,
        row.hour >= period.start,
        row.hour < period.end,
    )
    # PostgreSQL sums big integers as decimals.
    return [
        Spent(workspace_id=workspace_id or None, key_id=key_id, quantity=int(quantity), nano=int(nano))
        for workspace_id, key_id, quantity, nano in await session.execute(query.group_by(*whose).order_by(*whose))
    ]


async def spent_by_period(
    session: AsyncSession, organisation_id: str, currency: str, periods: Sequence[Period]
) -> dict[Period, int]:
    """What all of an organisation's use in each period was worth, in nano-units; periods without use are left out."""
    worth = {
        period: sum(each.nano for each in await spent(session, organisation_id, currency, period)) for period in periods
    }
    return {period: nano for period, nano in worth.items() if nano}
