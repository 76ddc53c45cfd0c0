"""A real `galerne serve` as a child process, and what a test wants to do with it."""

import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.processes import Process, is_running, tree, wait_for

ADMIN_KEY = "admin-key-of-the-tests-0123456789"
START_S = 90
_STOP_S = 40
_LOG_S = 20
_numbers = itertools.count()


@dataclass(frozen=True)
class Key:
    """An API key made for a test."""

    id: str
    secret: str


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Server:
    """A running server; `kill` ends it at once, leaving the block of `serving` ends it in good order."""

    address: str
    data: Path
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Where it listens."""
        parts = urlsplit(self.address)
        return parts.hostname or "", parts.port or 0

    def call(self, method: str, path: str, body: object = None, key: str | None = ADMIN_KEY) -> Answer:
        """One request with JSON, or with the bytes as they are."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(*self.host_and_port, timeout=60)
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def chat(self, text: str = "Hello", key: str | None = ADMIN_KEY, **fields: object) -> Answer:
        """One short chat request to `brise`."""
        body = {"model": "brise", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **fields}
        return self.call("POST", "/v1/chat/completions", body, key)

    def new_key(self, name: str = "test", **fields: object) -> Key:
        """A key with the permissions of a developer, or those named in `scopes`."""
        fields.setdefault("scopes", ["inference:run", "models:read"])
        made = self.call("POST", "/v1/admin/api-keys", {"name": name, **fields})
        assert made.status == 201, made.body
        return Key(made.json["id"], made.json["key"])

    def usage(self, key: Key | None = None) -> list[dict[str, Any]]:
        """Every usage event of the key (of the whole organisation without one), newest first."""
        rows: list[dict[str, Any]] = []
        after = ""
        while True:
            query = f"limit=1000{f'&api_key_id={key.id}' if key else ''}{after}"
            page = self.call("GET", f"/v1/admin/usage?{query}")
            assert page.status == 200, page.body
            rows += page.json["data"]
            if not page.json["has_more"]:
                return rows
            after = f"&after={page.json['last_id']}"

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 when there are none."""
        lines = self.call("GET", "/metrics", key=None).body.decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        samples = [line for line in lines if re.match(rf"{name}[ {{]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples if all(label in line for label in wanted))

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line on this server's data folder, beside it."""
        return galerne(*arguments, "--data", str(self.data), environment=self.environment)

    def add_upstream(self, name: str, url: str, **options: str) -> None:
        """Register another server's model, and wait until this one knows it."""
        named = [part for option, value in options.items() for part in (f"--{option.replace('_', '-')}", value)]
        added = self.cli("models", "add", name, "--engine", "openai", "--url", url, *named)
        assert added.returncode == 0, added.stderr

    def engines(self) -> list[Process]:
        """The engine processes of this server."""
        return [process for process in tree(self.process.pid) if process.is_engine]

    def wait_ready(self, within_s: float = START_S) -> None:
        """Return when the server can answer."""
        wait_for(lambda: self._is_ready(), within_s, f"{self.address}/readyz; its log:\n{self.logged()[-4000:]}")

    def logged(self) -> str:
        """Everything it has written to standard error."""
        return self.log.read_text(errors="replace")

    def logged_with(self, answer: Answer, since: int) -> str:
        """What it has written after `since` characters; waits for the line of this answer, which comes after it."""
        request_id = answer.headers["x-request-id"]

        def is_there() -> bool:
            return any(request_id in line and line.endswith("\n") for line in self.logged()[since:].splitlines(True))

        wait_for(is_there, _LOG_S, f"a line of request {request_id}")
        return self.logged()[since:]

    def kill(self) -> None:
        """End the server with SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait(10)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"the server has ended:\n{self.logged()[-4000:]}"
        try:
            return self.call("GET", "/readyz", key=None).status == 200
        except OSError:
            return False


@contextmanager
def serving(
    data: Path, *arguments: str, environment: Mapping[str, str] | None = None, command: str = "serve"
) -> Iterator[Server]:
    """A server on a free port with its data in `data`; it must end in good order and leave no process behind."""
    server = start(data, *arguments, environment=environment, command=command)
    everyone: list[Process] = []
    try:
        server.wait_ready()
        yield server
        everyone = tree(server.process.pid)
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(_STOP_S)
            finally:
                server.process.kill()
    if everyone:
        assert server.process.returncode == 0, f"SIGTERM: {server.process.returncode}\n{server.logged()[-2000:]}"
    assert [left for left in everyone if is_running(left)] == []


def start(data: Path, *arguments: str, environment: Mapping[str, str] | None = None, command: str = "serve") -> Server:
    """A server that has begun to listen and may not be ready yet; the caller ends it."""
    data.parent.mkdir(parents=True, exist_ok=True)
    name = f"{data.name}.{command}-{next(_numbers)}"
    log, said = data.parent / f"{name}.stderr", data.parent / f"{name}.stdout"
    variables = clean_environment(GALERNE_ADMIN_KEY=ADMIN_KEY, **(environment or {}))
    with log.open("ab") as stderr, said.open("wb") as stdout:
        process = subprocess.Popen(
            _command(command, "--port", "0", "--data", str(data), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=variables,
        )
    try:
        address = _announced_address(process, said, log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Server(address, data, process, log, variables)


def galerne(
    *arguments: str, environment: Mapping[str, str] | None = None, within_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """One run of the command line to its end."""
    return subprocess.run(
        _command(*arguments),
        capture_output=True,
        text=True,
        timeout=within_s,
        env=dict(environment) if environment is not None else clean_environment(),
        stdin=subprocess.DEVNULL,
        check=False,
    )


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment with no settings of Galerne's but these; outside connections are refused."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GALERNE_")}
    return {**inherited, "GALERNE_OFFLINE": "1", "COLUMNS": "200", **variables}


def _command(*arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", "galerne.apps.cli", *arguments]


def _announced_address(process: subprocess.Popen[bytes], said: Path, log: Path) -> str:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        found = re.search(r"http://\S+", said.read_text())
        if found:
            return found[0]
        assert process.poll() is None, f"it ended with {process.returncode}:\n{log.read_text(errors='replace')[-4000:]}"
        time.sleep(0.05)
    raise AssertionError(f"it did not say where it listens within {START_S} s")
