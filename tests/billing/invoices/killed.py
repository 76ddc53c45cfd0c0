"""Closes a month in processes that are killed: reads `ADDRESS NUMBER` lines, and before the commit of that number the
process that closes kills itself as `kill -9` does. Answers how each one ended.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import Connection, Engine, event

from galerne.billing.invoices import CloseOrder, close_billing
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, ManualClock
from tests.billing.invoices.customers import CLOSING, House


def _writes(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        return not connection.get_execution_options().get("postgresql_readonly", False)
    return not connection.exec_driver_sql("PRAGMA query_only").scalar()


async def _close(url: str) -> None:
    database = Database(url)
    house = House(database, ManualClock(CLOSING), Ids())
    await close_billing(database, SYSTEM, CloseOrder(period="2026-10"), house.parts())
    await database.close()


def _run(url: str, last: int) -> None:
    count = 0

    def counted(connection: Any) -> None:
        nonlocal count
        if _writes(connection):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", counted)
    asyncio.run(_close(url))


def main() -> None:
    for line in sys.stdin:
        url, last = line.split()
        child = os.fork()
        if child == 0:
            _run(url, int(last))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
