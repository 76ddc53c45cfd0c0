"""Re-rates in processes that are killed: reads `ADDRESS DIGEST NUMBER` lines, as `dying.serve` says."""

from datetime import timedelta

from galerne.billing import (
    Match,
    NewRate,
    PriceChange,
    agreed_until,
    begin_rerating,
    continue_rerating,
    find_rerating,
    preview_in_pages,
)
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from tests.billing.dying import serve
from tests.identity.tenants import NOW

LATER = NOW + timedelta(days=1)
SMALL = 3


def dearer(nano: int = 4_000_000) -> PriceChange:
    match = Match(token_class="output", model_id="large")
    return PriceChange(rates=(NewRate(match=match, currency="EUR", nano=nano, effective_from=NOW),), retroactive=True)


async def apply(database: Database, digest: str) -> None:
    clock = ManualClock(LATER)
    async with database.reading() as session:
        run = await find_rerating(session, digest)
    if run is None:
        report = await preview_in_pages(database, dearer(), clock, as_of=agreed_until(digest))
        async with database.transaction() as session:
            run = await begin_rerating(session, SYSTEM, dearer(), (report, digest), Ids(), clock)
    while run.finished_at is None:
        async with database.transaction() as session:
            run = await continue_rerating(session, digest, clock, SMALL)


async def _apply(url: str, digest: str) -> None:
    database = Database(url)
    await apply(database, digest)
    await database.close()


if __name__ == "__main__":
    serve(_apply)
