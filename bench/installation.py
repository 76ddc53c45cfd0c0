"""Our own server to measure: an installation with every duty of production on, in a folder of its own."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.load import Target
from bench.processes import Subject, first_line, running, until_answered
from bench.upstream import SHORT
from galerne.billing import NOTICE

_CLI = (sys.executable, "-m", "galerne.apps.cli")
_ADMIN_KEY = "benchmark-admin-key"
HEADERS = {"authorization": f"Bearer {_ADMIN_KEY}", "content-type": "application/json"}
"""Who asks is the administrator."""

_PLENTY = 2_000_000_000
_PRICE = {"input": "0.5", "cached": "0.05", "output": "1.5", "currency": "EUR"}


@dataclass(frozen=True)
class Place:
    """Where an installation keeps its things: a folder, and a database unless it is to be SQLite in that folder."""

    data: Path
    database_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def log(self) -> Path:
        """The file that receives the server's log, a line for each request among it."""
        return self.data.with_name(f"{self.data.name}.log")

    def variables(self) -> dict[str, str]:
        """The environment of every process of this installation."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GALERNE_")}
        own = {"GALERNE_ADMIN_KEY": _ADMIN_KEY, "GALERNE_LOG_LEVEL": "info", "GALERNE_OFFLINE": "1"}
        address = {"GALERNE_DATABASE_URL": self.database_url} if self.database_url else {}
        return {**inherited, **own, **address, **self.environment}

    def cli(self, *arguments: str) -> str:
        """What a command of `galerne` on this installation prints."""
        done = self._ended(arguments)
        if done.returncode:
            raise SystemExit(f"galerne {' '.join(arguments)}: {done.stderr[-2000:]}")
        return done.stdout

    def metered(self) -> int:
        """How many requests have a usage row, asked beside the server: it need not load its control plane for that."""
        return json.loads(self.cli("usage", "--limit", "1", "--json"))["totals"]["requests"]

    def books_are_sound(self) -> bool:
        """Whether every balance and hold is what the transfers say."""
        return self._ended(["credits", "check"]).returncode == 0

    def _ended(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [*_CLI, *arguments, "--data", str(self.data)]
        return subprocess.run(command, env=self.variables(), capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Control:
    """The administrator's requests to a running server."""

    port: int

    def get(self, path: str) -> Any:
        """JSON from the control plane."""
        return json.loads(self.asked(path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the control plane makes of `body`."""
        return json.loads(self.asked(path, body))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the control plane sets to `body`."""
        return json.loads(self.asked(path, body, "PUT"))

    def asked(self, path: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> bytes:
        """The answer as it comes."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", content, HEADERS, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()


@dataclass(frozen=True)
class Installation:
    """A running server with a key that callers use."""

    subject: Subject
    place: Place
    control: Control

    @property
    def target(self) -> Target:
        """Where callers ask, with their key."""
        return self.subject.target

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.subject.pid

    def metrics(self) -> str:
        """What Prometheus would read now."""
        return self.control.asked("/metrics").decode()

    def metered(self) -> int:
        """How many requests have a usage row."""
        return self.control.get("/v1/admin/usage?limit=1")["totals"]["requests"]

    def logged(self) -> int:
        """How many requests have a line in the log."""
        with self.place.log.open() as lines:
            return sum('"event":"request"' in line for line in lines)


def set_up(place: Place, upstream: Target | None = None, models: Collection[str] = ()) -> str:
    """Everything that a request has to pass in production; the secret of a key with limits that it never reaches.

    The models are those of the mock upstream, if any; they have prices, and who pays has credit.
    """
    for model in models:
        assert upstream is not None
        place.cli("models", "add", model, "--url", f"http://{upstream.host}:{upstream.port}/v1")
    with _served(place, os.sched_getaffinity(0), "--no-engines") as (_, _, port):
        control = Control(port)
        for model in models:
            control.put(f"/v1/admin/prices/{model}", _PRICE)
        key = {"name": "bench", "requests_per_minute": _PLENTY, "tokens_per_minute": _PLENTY}
        secret = str(control.post("/v1/admin/api-keys", key)["key"])
    (payer,) = json.loads(place.cli("organisations", "list", "--json"))
    place.cli("credits", "grant", payer["id"], str(_PLENTY), "--currency", "EUR", "--reason", "to measure")
    if models:
        time.sleep(NOTICE.total_seconds())  # only then their prices count
    return secret


@contextmanager
def administered(place: Place, cores: Collection[int]) -> Generator[Control]:
    """A server without engines on these cores, for its administrator alone."""
    with _served(place, cores, "--no-engines") as (_, _, port):
        yield Control(port)


@contextmanager
def serving(
    place: Place, key: str, cores: Collection[int], *arguments: str, first_model: str = SHORT
) -> Generator[Installation]:
    """A server on these cores that has answered a first request of `first_model`."""
    with _served(place, cores, *arguments) as (process, began_s, port):
        target = Target("127.0.0.1", port, key)
        took_s = until_answered(target, process, first_model) - began_s
        yield Installation(Subject("Galerne", target, process.pid, took_s), place, Control(port))


@contextmanager
def _served(
    place: Place, cores: Collection[int], *arguments: str
) -> Generator[tuple[subprocess.Popen[str], float, int]]:
    # Duties are done by a process of its own, which would take its time from the one core that is measured.
    command = [*_CLI, "serve", "--no-duties", "--port", "0", "--data", str(place.data), *arguments]
    with running(command, cores, environment=place.variables(), log=place.log, speaks=True) as (process, began_s):
        found = re.search(r"http://[\d.]+:(\d+)", first_line(process))
        if found is None:
            raise SystemExit(f"galerne serve did not start; the end of its log: {place.log.read_text()[-2000:]}")
        yield process, began_s, int(found[1])
