"""The hourly sums of a month as they are stored."""

from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing import BucketKey, LineKey, Sum
from galerne.billing.prices.pricing import TokenClass
from galerne.billing.rating.sums import HOURS


async def buckets_in(session: AsyncSession, period: str, organisation_id: str | None = None) -> dict[BucketKey, Sum]:
    """What a month's buckets hold, late usage of earlier months among it, by its own hours."""
    query = select(HOURS).where(HOURS.c.period == period)
    if organisation_id is not None:
        query = query.where(HOURS.c.organisation_id == organisation_id)
    return dict(_bucket_of(row) for row in await session.execute(query))


def _bucket_of(row: Any) -> tuple[BucketKey, Sum]:
    """A row of `HOURS`."""
    token_class = cast(TokenClass, row.token_class)
    line = LineKey(row.model_id, token_class, row.service_tier, row.zone, row.batch, row.rate_id, row.tier_index)
    key = BucketKey(row.organisation_id, row.workspace_id or None, row.key_id, row.hour, row.currency, line)
    return key, Sum(row.requests, row.quantity, row.nano)
