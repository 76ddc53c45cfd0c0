"""Starts engine processes for tests and talks to them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM
from socket import socket as open_socket
from typing import Any

import aiohttp


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = open_socket(AF_UNIX, SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.content)

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.content.decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""], lines[-2:]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass(frozen=True)
class Engine:
    socket: Path
    pid: int

    def post(self, path: str, body: dict[str, Any] | bytes) -> Answer:
        return self._ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None)

    def chat(self, content: str, **fields: Any) -> Answer:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **fields})

    def complete(self, prompt: Any, **fields: Any) -> Answer:
        return self.post("/v1/completions", {"prompt": prompt, **fields})

    def tokens(self, text: str) -> list[int]:
        return self.post("/tokenize", {"content": text}).json["tokens"]

    def metric(self, name: str) -> float:
        for line in self.get("/metrics").content.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        connection = _Connection(self.socket)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()


def command(model: Path, socket: Path, cache: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "galerne.apps.commands.engine", "llamacpp", "--model", str(model)]
    return [*words, "--socket", str(socket), "--cache", str(cache), *more]


@contextmanager
def running(model: Path, folder: Path, *more: str) -> Iterator[Engine]:
    socket = folder / "e.sock"
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(command(model, socket, folder / "cache", *more), env=environment)
    engine = Engine(socket, process.pid)
    try:
        wait_until(lambda: process.poll() is not None or _healthy(engine), 60)
        assert process.poll() is None, "the engine did not start"
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(5)
        finally:
            process.kill()
            process.wait()


@asynccontextmanager
async def session(engine: Engine) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(path=str(engine.socket))
    async with aiohttp.ClientSession("http://engine", connector=connector) as opened:
        yield opened


def wait_until(condition: Any, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not so within {timeout_s} s"
        time.sleep(0.05)


def _healthy(engine: Engine) -> bool:
    try:
        return engine.get("/health").status == 200
    except OSError:
        return False
