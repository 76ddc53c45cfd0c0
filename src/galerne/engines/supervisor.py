"""Knows how to run processes that others rely on: starts them, probes them, and does what `supervision` decides."""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from galerne.engines.supervision import (
    Action,
    Event,
    Exited,
    Policy,
    Probed,
    Spawned,
    State,
    StopRequested,
    Supervised,
    Tick,
    begin,
    step,
)
from galerne.kernel.clock import Clock
from galerne.kernel.errors import NotFound
from galerne.kernel.http_client import Client, Lost, NotConnected, request_to
from galerne.kernel.logs import get_logger

_PROBE_TIMEOUT_S = 5.0
_LINES_KEPT = 20
_CLI = (sys.executable, "-m", "galerne.apps.cli")
_log = get_logger("engines")


class ProcessSpec(Protocol):
    """A process that should run. It ends when its standard input does, and says at `socket` whether it is well."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def socket(self) -> Path:
        """The unix socket at which it answers `GET /health`."""
        ...

    def command(self) -> list[str]:
        """Its command line."""
        ...


@dataclass(frozen=True)
class EngineSpec:
    """An engine that should run: a model's folder and the socket to serve it on; None leaves a choice to the engine."""

    name: str
    model_dir: Path
    socket: Path
    cache: Path
    embeddings: bool = False
    parallel: int = 8
    context: int | None = None
    threads: int | None = None

    def command(self) -> list[str]:
        """The command line of its process."""
        words = [*_CLI, "engine", "llamacpp", "--follow-stdin", "--name", self.name]
        words += ["--model", str(self.model_dir), "--socket", str(self.socket), "--cache", str(self.cache)]
        words += ["--parallel", str(self.parallel)]
        words += ["--context", str(self.context)] if self.context is not None else []
        words += ["--threads", str(self.threads)] if self.threads is not None else []
        return [*words, "--embeddings"] if self.embeddings else words


@dataclass(frozen=True)
class Replica:
    """How an engine is doing; requests go to `socket` while `ready`, and `last_error` says why it last failed."""

    name: str
    socket: Path
    state: State
    ready: bool
    restarts: int
    last_error: str | None


class Supervisor:
    """Keeps engines running, each in a process of its own that ends when this one does, however that comes.

    `relay_log` passes on what they write to standard error, and keeps its end for `last_error`; without, they write to
    this process's own.
    """

    def __init__(self, clock: Clock, policy: Policy | None = None, *, relay_log: bool = True) -> None:
        self._clock = clock
        self._policy = policy or Policy()
        self._relay_log = relay_log
        self._engines: dict[str, _Engine] = {}

    async def start(self, specs: Sequence[ProcessSpec]) -> None:
        """Starts the engines and returns at once; `wait_ready` waits for one."""
        for spec in specs:
            self._engines[spec.name] = _Engine(spec, self._clock, self._policy, self._relay_log)
            self._engines[spec.name].start()

    async def stop(self) -> None:
        """Lets running requests finish, then ends all engines; returns when they are gone."""
        await asyncio.gather(*(engine.stop() for engine in self._engines.values()))

    def replica(self, name: str) -> Replica:
        """How the engine `name` is doing; raises `NotFound` for one that was never started."""
        if name not in self._engines:
            raise NotFound(f"no engine is called {name!r}")
        return self._engines[name].replica()

    def replicas(self) -> list[Replica]:
        """How every engine is doing, in the order in which they were started."""
        return [engine.replica() for engine in self._engines.values()]

    async def wait_ready(self, name: str, timeout_s: float) -> bool:
        """Whether the engine `name` is ready within `timeout_s`; raises `NotFound` as `replica` does."""
        self.replica(name)
        try:
            async with asyncio.timeout(timeout_s):
                await self._engines[name].until_ready()
        except TimeoutError:
            return False
        return True


class _Engine:
    """One engine's driver: turns what happens to the process into events, and actions into deeds."""

    def __init__(self, spec: ProcessSpec, clock: Clock, policy: Policy, relay_log: bool) -> None:
        self._spec = spec
        self._clock = clock
        self._policy = policy
        self._relay_log = relay_log
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._engine: Supervised | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._incarnation = 0
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._changed = asyncio.Condition()
        self._running: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._events.put_nowait((self._incarnation, StopRequested()))
        if self._running is not None:
            await self._running

    async def until_ready(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.replica().ready)

    def replica(self) -> Replica:
        engine = self._engine or Supervised(State.STARTING)
        ready = engine.state is State.READY
        return Replica(self._spec.name, self._spec.socket, engine.state, ready, engine.restarts, engine.last_error)

    async def _run(self) -> None:
        self._engine, actions = begin()
        while True:
            for action in actions:
                await self._act(action)
            if self._engine.state is State.STOPPED:
                return
            event = await self._next_event(self._engine)
            before = self._engine
            self._engine, actions = step(before, event, self._clock.monotonic(), self._policy)
            if self._engine.state is not before.state:
                await self._announce(self._engine)

    async def _next_event(self, engine: Supervised) -> Event:
        while True:
            wait_s = None if engine.wake_at is None else max(0.0, engine.wake_at - self._clock.monotonic())
            try:
                async with asyncio.timeout(wait_s):
                    incarnation, event = await self._events.get()
            except TimeoutError:
                return Tick()
            if incarnation == self._incarnation or isinstance(event, StopRequested):
                return event

    async def _announce(self, engine: Supervised) -> None:
        _log.info("engine", engine=self._spec.name, state=str(engine.state), last_error=engine.last_error)
        async with self._changed:
            self._changed.notify_all()

    async def _act(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                await self._spawn()
            case Action.PROBE:
                self._errand(self._probe(self._incarnation))
            case Action.TERMINATE:
                self._signal(signal.SIGTERM)
            case Action.KILL:
                self._signal(signal.SIGKILL)

    async def _spawn(self) -> None:
        self._incarnation += 1
        self._last_lines.clear()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._spec.command(),
                stdin=asyncio.subprocess.PIPE,  # closes with this process, which ends the engine (--follow-stdin)
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE if self._relay_log else None,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},  # noqa: TID251 - passed on unread, for the child
                start_new_session=True,  # Ctrl-C in a terminal is for us; we then stop the engines in good order
            )
        except OSError as error:
            self._tell(self._incarnation, Exited(f"could not be started: {error.strerror}"))
            return
        self._errand(self._watch(self._process, self._incarnation))
        self._tell(self._incarnation, Spawned())

    async def _watch(self, process: asyncio.subprocess.Process, incarnation: int) -> None:
        while process.stderr is not None and (line := await process.stderr.readline()):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            self._last_lines.append(line.decode(errors="replace").strip())
        code = await process.wait()
        self._tell(incarnation, Exited(_reason(code, list(self._last_lines))))

    async def _probe(self, incarnation: int) -> None:
        self._tell(incarnation, Probed(await _answers(self._spec.socket)))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _tell(self, incarnation: int, event: Event) -> None:
        self._events.put_nowait((incarnation, event))

    def _errand(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


async def _answers(socket: Path) -> bool:
    address, head = request_to("GET", "http://engine/health", {"connection": "close"}, socket)
    try:
        with closing(await Client().send(address, head, None, _PROBE_TIMEOUT_S)) as answer:
            return answer.status == 200
    except (NotConnected, Lost, TimeoutError):
        return False


def _reason(code: int, lines: list[str]) -> str:
    last = next((line for line in reversed(lines) if line), "")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{how}: {last}" if last else how
