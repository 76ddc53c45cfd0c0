"""A server's worker for duties, which it supervises as it does its engines; of the duties themselves it knows nothing.

It is a process of its own so that rating a backlog takes no time from whoever answers requests, needs no memory of
theirs, and can crash without them.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from galerne.apps.workers import workers_supervisor
from galerne.kernel import Clock, Settings

_NAME = "duties"
_AFTER_S = 5.0  # a server's first answers come first


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
