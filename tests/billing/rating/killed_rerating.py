"""Re-rates in processes that are killed: reads `ADDRESS DIGEST NUMBER` lines, and before the commit of that number the
process kills itself as `kill -9` does. Answers how each one ended.
"""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, event

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


def _writes(connection: Any) -> bool:
    if connection.dialect.name == "postgresql":
        return not connection.get_execution_options().get("postgresql_readonly", False)
    return not connection.exec_driver_sql("PRAGMA query_only").scalar()


def _run(url: str, digest: str, last: int) -> None:
    count = 0

    def counted(connection: Any) -> None:
        nonlocal count
        if _writes(connection):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", counted)
    asyncio.run(_apply(url, digest))


def main() -> None:
    for line in sys.stdin:
        url, digest, last = line.split()
        child = os.fork()
        if child == 0:
            _run(url, digest, int(last))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
