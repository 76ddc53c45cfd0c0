"""Processes to measure, each started on cores of its own and ended with the block, and when one first answers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.load import Target
from bench.upstream import SHORT

_PATIENCE_S = 120
_END_S = 60
_AGAIN_S = 0.005


@dataclass(frozen=True)
class Subject:
    """A server to measure: where it is, its process, and how long it took from its start to its first answer."""

    name: str
    target: Target
    pid: int
    cold_start_s: float = 0.0


@contextmanager
def running(
    command: Sequence[str | Path],
    cores: Collection[int],
    *,
    environment: Mapping[str, str] | None = None,
    log: Path = Path(os.devnull),
    speaks: bool = False,
) -> Generator[tuple[subprocess.Popen[str], float]]:
    """A process on these cores and the moment (monotonic, s) of its start.

    What it says is added to `log`; that of a process that `speaks` is for us to read, all but its errors.
    """
    words = [str(word) for word in command]
    with machine.on_cores(cores), log.open("a") as errors:
        began_s = time.monotonic()
        said = subprocess.PIPE if speaks else errors
        process = subprocess.Popen(words, stdout=said, stderr=errors, env=environment, text=True)
    try:
        yield process, began_s
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def mocking(cores: Collection[int]) -> Generator[Subject]:
    """The mock upstream on these cores."""
    with running([sys.executable, "-m", "bench.upstream"], cores, speaks=True) as (process, _):
        yield Subject("upstream alone", Target("127.0.0.1", int(first_line(process))), process.pid)


def first_line(process: subprocess.Popen[str]) -> str:
    """What a process says first, waited for."""
    assert process.stdout is not None
    return process.stdout.readline()


def until_answered(target: Target, process: subprocess.Popen[str], model: str = SHORT) -> float:
    """Ask for a chat completion again and again; the moment (monotonic, s) at which the first one came."""
    request = target.request(model, stream=False)
    end_s = time.monotonic() + _PATIENCE_S
    status = b""
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r:.200} ended with {process.returncode}")
        with suppress(OSError):
            status = _status(target, request)
            if status == b"200":
                return time.monotonic()
        time.sleep(_AGAIN_S)
    raise RuntimeError(f"no good answer within {_PATIENCE_S} s, the last with status {status.decode() or 'none'}")


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _status(target: Target, request: bytes) -> bytes:
    with closing(socket.create_connection((target.host, target.port), timeout=10)) as connection:
        connection.sendall(request)
        head = b""
        while len(head) < 12:
            arrived = connection.recv(65536)
            if not arrived:
                break
            head += arrived
        return head[9:12]
