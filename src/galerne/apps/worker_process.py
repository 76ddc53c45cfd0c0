"""A worker as a process: alone, or as a child of `galerne serve`, which supervises it as it does its engines.

It is a process of its own so that rating a backlog takes no time from whoever answers requests, needs no memory of
theirs, and can crash without them.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from galerne.apps.worker import Worker
from galerne.apps.workers import workers_supervisor
from galerne.kernel import Clock, Database, Settings, SystemClock

_NAME = "duties"
_AFTER_S = 5.0  # a server's first answers come first
_ALIVE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class DutiesSpec:
    """The worker that a server starts beside itself: where it tells that it lives, and the server's data folder."""

    socket: Path
    data: Path
    name: str = _NAME

    def command(self) -> list[str]:
        """The command line of its process."""
        words = [sys.executable, "-m", "galerne.apps.cli", "worker"]
        return [*words, "--data", str(self.data), "--socket", str(self.socket)]


async def serve_duties(settings: Settings, socket: Path | None = None) -> None:
    """Do duties until a signal says stop; with `socket`, also until standard input ends, and say there that it lives.

    Raises `Conflict` when the database's schema is another version's: `galerne serve` brings it up to date.
    """
    database = Database(settings.resolved_database_url, pool_size=4)
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    told = None
    try:
        await database.check_schema()
        if socket is not None:
            threading.Thread(target=_follow_stdin, args=(loop, stopping), daemon=True).start()
            told = await asyncio.start_unix_server(_tell, socket)
        work = asyncio.create_task(Worker(database, SystemClock()).run())
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if work.done():
            work.result()  # it ends by itself only with an error
        work.cancel()
        await asyncio.wait((work,))
    finally:
        if told is not None:
            told.close()
        await database.close()


@asynccontextmanager
async def beside_duties(settings: Settings, clock: Clock, run: Path, *, wanted: bool) -> AsyncGenerator[None]:
    """A worker runs meanwhile, if it is wanted: begun a little later, restarted if it dies, told to stop at the end."""
    if not wanted:
        yield
        return
    supervisor = workers_supervisor(clock)
    begun = asyncio.create_task(_start_later(supervisor.start, DutiesSpec(run / f"{_NAME}.sock", settings.data)))
    try:
        yield
    finally:
        begun.cancel()
        with suppress(asyncio.CancelledError):
            await begun
        await supervisor.stop()


async def _start_later(start: Callable[[list[DutiesSpec]], Awaitable[None]], spec: DutiesSpec) -> None:
    await asyncio.sleep(_AFTER_S)
    await start([spec])


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_ALIVE)
        await writer.drain()
    writer.close()


def _follow_stdin(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(stopping.set)
