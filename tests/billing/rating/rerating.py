"""A re-rating as the route does one of few events."""

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing import (
    PriceChange,
    Rerating,
    agreed_until,
    begin_rerating,
    continue_rerating,
    preview_rerating,
)
from galerne.governance import SYSTEM
from galerne.kernel import Clock, Ids


async def rate_again(session: AsyncSession, change: PriceChange, digest: str, ids: Ids, clock: Clock) -> Rerating:
    """Begin it and do all of it; what was shown. `Conflict` unless that is what `digest` agreed to."""
    report = await preview_rerating(session, change, clock, as_of=agreed_until(digest))
    run = await begin_rerating(session, SYSTEM, change, (report, digest), ids, clock)
    while run.finished_at is None:
        run = await continue_rerating(session, digest, clock)
    return report
