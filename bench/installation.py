"""Processes to measure: a `galerne serve` in a folder of its own, and the mock upstream, each on cores of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import Target

_ADMIN_KEY = "benchmark-admin-key"
_PATIENCE_S = 120
_NO_LIMIT = "2000000000"


@dataclass(frozen=True)
class Installation:
    """A running server: where, as which process, how long it took to answer, and a key without limits."""

    target: Target
    pid: int
    alive_after_s: float
    ready_after_s: float
    data: Path

    def get(self, path: str) -> Any:
        """JSON from the control plane."""
        headers = {"authorization": f"Bearer {_ADMIN_KEY}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.target.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def metered(self) -> int:
        """How many requests have a usage row."""
        return self.get("/v1/admin/usage?limit=1")["totals"]["requests"]


@contextmanager
def serving(
    data: Path, cores: Collection[int], *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Installation]:
    """A server on these cores, ready to answer."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GALERNE_")}
    own = {"GALERNE_ADMIN_KEY": _ADMIN_KEY, "GALERNE_LOG_LEVEL": "warning", "GALERNE_OFFLINE": "1"}
    began_s = time.monotonic()
    process = subprocess.Popen(
        [*_CLI, "serve", "--port", "0", "--data", str(data), *arguments],
        stdout=subprocess.PIPE,
        env={**inherited, **own, **(environment or {})},
        text=True,
    )
    os.sched_setaffinity(process.pid, cores)
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.]+:(\d+)", process.stdout.readline())
        if found is None:
            raise SystemExit("galerne serve did not start")
        port = int(found[1])
        alive_s, ready_s = (_when_answered(port, path) - began_s for path in ("/healthz", "/readyz"))
        yield Installation(Target("127.0.0.1", port, _key(data)), process.pid, alive_s, ready_s, data)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()


@contextmanager
def mocking(cores: Collection[int]) -> Iterator[Target]:
    """The mock upstream on these cores."""
    process = subprocess.Popen([sys.executable, "-m", "bench.upstream"], stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, cores)
    try:
        assert process.stdout is not None
        yield Target("127.0.0.1", int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(10)


def register(data: Path, name: str, upstream: Target) -> None:
    """Make a model of the mock known to the installation in `data`."""
    _cli("models", "add", name, "--url", f"http://{upstream.host}:{upstream.port}/v1", "--data", str(data))


_CLI = (sys.executable, "-m", "galerne.apps.cli")


def _cli(*arguments: str) -> str:
    return subprocess.run([*_CLI, *arguments], check=True, capture_output=True, text=True).stdout


def _key(data: Path) -> str:
    made = _cli("keys", "create", "bench", "--rpm", _NO_LIMIT, "--tpm", _NO_LIMIT, "--data", str(data), "--json")
    return str(json.loads(made)["key"])


def _when_answered(port: int, path: str) -> float:
    end_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                return time.monotonic()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise SystemExit(f"{path} was not good within {_PATIENCE_S} s")
