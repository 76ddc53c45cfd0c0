"""Work in processes that are killed: before the commit of a number a process kills itself as `kill -9` does."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine

from sqlalchemy import Connection, Engine, event


def serve(work: Callable[..., Coroutine[object, object, None]]) -> None:
    """Read lines of `work`'s arguments, the number of the last commit behind them; answer how each process ended."""
    for line in sys.stdin:
        *arguments, last = line.split()
        child = os.fork()
        if child == 0:
            _run(work(*arguments), int(last))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(work: Coroutine[object, object, None], last: int) -> None:
    count = 0

    def counted(connection: Connection) -> None:
        nonlocal count
        if _writes(connection):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", counted)
    asyncio.run(work)


def _writes(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        return not connection.get_execution_options().get("postgresql_readonly", False)
    return not connection.exec_driver_sql("PRAGMA query_only").scalar()
