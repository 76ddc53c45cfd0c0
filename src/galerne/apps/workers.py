"""Further processes that answer on a server's port: what they are started with, and how they know its engines.

The server supervises them as it does its engines. Each listens on the port by itself, so that the kernel spreads
connections over those that live; the engines stay with the server, which notes in the run folder how they are doing.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from galerne.apps.listening import Listening
from galerne.apps.scrapes import socket_of
from galerne.engines import Policy, Replica, State, Supervisor
from galerne.kernel import Clock

FIRST = "1"
"""The name of the server's own process among the workers."""

_POLICY = Policy(start_timeout_s=60, start_probe_s=0.25, grace_s=75)
_NOTE_S = 0.2
_KNOWN_S = 0.2
_NOTES = "engines.json"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker that should run: its name, the run folder, the server's data folder and where it listens."""

    name: str
    run: Path
    data: Path
    where: Listening

    @property
    def socket(self) -> Path:
        """Where it can be asked whether it is well."""
        return socket_of(self.run, self.name)

    def command(self) -> list[str]:
        """The command line of its process."""
        words = [sys.executable, "-m", "galerne.apps.cli", "gateway", "--worker-of", str(self.run)]
        words += ["--worker", self.name, "--data", str(self.data)]
        return [*words, "--host", self.where.host, "--port", str(self.where.port)]


def worker_specs(count: int, run: Path, data: Path, where: Listening) -> list[WorkerSpec]:
    """The workers besides the server's own process, so that there are `count` in all."""
    return [WorkerSpec(str(number), run, data, where) for number in range(2, count + 1)]


def workers_supervisor(clock: Clock) -> Supervisor:
    """A supervisor for workers, who write to the log themselves."""
    return Supervisor(clock, _POLICY, relay_log=False)


class _Note(msgspec.Struct):
    name: str
    socket: str
    state: State
    restarts: int
    last_error: str | None


async def note_engines(run: Path, supervisor: Supervisor) -> None:
    """Write down how the engines are doing whenever that has changed, for ever."""
    written = b""
    while True:
        now = msgspec.json.encode([_note(replica) for replica in supervisor.replicas()])
        if now != written:
            part = run / f"{_NOTES}.part"
            part.write_bytes(now)
            part.replace(run / _NOTES)
            written = now
        await asyncio.sleep(_NOTE_S)


class NotedEngines:
    """The server's engines as a worker knows them."""

    def __init__(self, run: Path, clock: Clock) -> None:
        self._path = run / _NOTES
        self._clock = clock
        self._known: list[Replica] = []
        self._until_s = 0.0

    def replicas(self) -> Sequence[Replica]:
        """How every engine was doing a moment ago."""
        now_s = self._clock.monotonic()
        if now_s >= self._until_s:
            self._until_s = now_s + _KNOWN_S
            try:
                notes = msgspec.json.decode(self._path.read_bytes(), type=list[_Note])
            except FileNotFoundError:
                notes = []  # the server writes it as it starts
            self._known = [_replica(note) for note in notes]
        return self._known


def _note(replica: Replica) -> _Note:
    return _Note(replica.name, str(replica.socket), replica.state, replica.restarts, replica.last_error)


def _replica(note: _Note) -> Replica:
    ready = note.state is State.READY
    return Replica(note.name, Path(note.socket), note.state, ready, note.restarts, note.last_error)
