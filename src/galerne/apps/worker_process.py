"""A worker as a process: alone, or as a child of `galerne serve`."""

import asyncio
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

from galerne.apps.worker import Worker
from galerne.kernel import Database, Settings, SystemClock

_ALIVE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


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
        work = asyncio.create_task(Worker(database, SystemClock(), settings).run())
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
