"""How replicas do, over HTTP on both databases, and the command that asks a server for it."""

import json
import threading
from collections.abc import AsyncGenerator, Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from galerne.apps.api import create_app
from galerne.apps.commands.models import app as models_app
from galerne.apps.installation import Installation
from galerne.apps.wiring import InstallationReplicas
from galerne.engines import Supervisor
from galerne.gateway import Failure, Gateway, HealthBook
from galerne.governance import SYSTEM
from galerne.identity import bootstrap
from galerne.kernel import Database, GalerneError, Ids, Settings, SystemClock
from galerne.models import ExternalModel, add_external

KEY, UPSTREAM_KEY = "an-admin-key-for-tests", "sk-of-the-other-server"
PATH = "/v1/admin/replicas"
runner = CliRunner()


@pytest.fixture
def book() -> HealthBook:
    return HealthBook()


@pytest.fixture
async def client(
    database: Database, ids: Ids, tmp_path: Path, book: HealthBook, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[httpx2.AsyncClient]:
    monkeypatch.setenv("GPU_KEY", UPSTREAM_KEY)
    clock, settings, registry = SystemClock(), Settings(data=tmp_path), CollectorRegistry()
    supervisor = Supervisor(clock)
    async with database.transaction() as session:
        await bootstrap(session, ids, clock, KEY)
        for url, key in (("http://127.0.0.1:8/v1", "GPU_KEY"), ("http://127.0.0.1:9/v1", "NO_SUCH_KEY")):
            place = ExternalModel(name="big", url=url, api_key_env=key, zone="fr")
            await add_external(session, SYSTEM, place, clock)
        adapter = ExternalModel(name="legal", adapter_of="big", upstream_model="lora")
        await add_external(session, SYSTEM, adapter, clock)
    replicas = InstallationReplicas(settings, supervisor, book, clock)
    gateway = Gateway(database=database, settings=settings, clock=clock, ids=ids, replicas=replicas, registry=registry)
    app = create_app(Installation(settings, database, clock, ids, supervisor, gateway, registry))
    headers = {"authorization": f"Bearer {KEY}"}
    await gateway.start()
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://galerne", headers=headers) as client:
        yield client
    await gateway.stop()


async def test_the_operator_sees_each_place_once_with_its_health_and_never_its_key(
    client: httpx2.AsyncClient, book: HealthBook
) -> None:
    before = {each["address"]: each for each in (await client.get(PATH)).json()["data"]}
    first, second = before["http://127.0.0.1:8/v1"], before["http://127.0.0.1:9/v1"]
    assert (first["models"], first["zone"], first["ready"], first["state"]) == (["big", "legal"], "fr", True, None)
    assert not second["ready"]
    assert "NO_SUCH_KEY" in second["last_error"]
    now_s = SystemClock().monotonic()
    book.know({"big": [first["id"], second["id"]]})
    book.probed(first["id"], now_s, alive=True, serves=frozenset({"b", "a"}))
    for _ in range(3):
        book.failed(first["id"], now_s, Failure.LOST)
    answer = await client.get(PATH)
    (seen,) = [each for each in answer.json()["data"] if each["id"] == first["id"]]
    assert {name: seen[name] for name in ("state", "ejections", "last_failure", "requests", "failures", "lists")} == {
        "state": "ejected",
        "ejections": 1,
        "last_failure": "lost",
        "requests": 3,
        "failures": 3,
        "lists": ["a", "b"],
    }
    assert UPSTREAM_KEY not in answer.text


async def test_where_models_run_is_the_operators_to_see(client: httpx2.AsyncClient) -> None:
    made = await client.post("/v1/admin/api-keys", json={"name": "n", "scopes": ["models:read", "usage:read"]})
    mine = {"authorization": f"Bearer {made.json()['key']}"}
    assert (await client.get(PATH, headers=mine)).status_code == 403


class _Canned(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        status, body = self.answers.get(self.headers["authorization"], (401, b'{"message": "who?"}'))
        if self.path != PATH:
            status, body = 404, b"<html>"
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        pass


@pytest.fixture
def address() -> Generator[str]:
    row = {
        "object": "replica",
        "id": "7",
        "models": ["big", "legal"],
        "address": "http://gpu1/v1",
        "zone": "fr",
        "ready": True,
        "last_error": None,
        "state": "ejected",
        "ejections": 1,
        "last_failure": "lost",
        "requests": 3,
        "failures": 2,
        "lists": None,
    }
    engine = {**row, "id": "brise", "models": ["brise"], "address": None, "state": None, "last_failure": None}
    sick = {**row, "id": "8", "ready": False, "last_error": "no key"}
    body = json.dumps({"object": "list", "process": 42, "data": [row, sick, engine]}).encode()
    _Canned.answers = {"Bearer right": (200, body)}
    server = HTTPServer(("127.0.0.1", 0), _Canned)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def asked(address: str, key: str, *words: str) -> str:
    return runner.invoke(
        models_app, ["health", "--server", address, "--key", key, *words], catch_exceptions=False
    ).output


def test_the_command_shows_what_the_server_says(address: str) -> None:
    lines = [line.split() for line in asked(address, "right").splitlines()]
    assert lines[1] == ["7", "big,", "legal", "http://gpu1/v1", "fr", "ejected", "3", "2", "lost"]
    assert lines[2][-6:] == ["not", "ready", "3", "2", "no", "key"]
    assert lines[3] == ["brise", "brise", "engine", "fr", "not", "asked", "yet", "3", "2", "-"]
    assert lines[4][:3] == ["As", "process", "42"]
    assert json.loads(asked(address, "right", "--json"))["process"] == 42


@pytest.mark.parametrize(
    ("suffix", "key", "said"),
    [("", "wrong", "who?"), ("/elsewhere", "right", "is no `galerne serve`"), ("", "a\nb", "has no blanks")],
)
def test_the_command_says_why_it_got_no_answer(address: str, suffix: str, key: str, said: str) -> None:
    with pytest.raises(GalerneError, match=said.replace("?", r"\?")) as refused:
        asked(address + suffix, key)
    assert "right" not in refused.value.message


def test_the_command_names_the_server_that_does_not_answer() -> None:
    with pytest.raises(GalerneError, match=r"No server answers at http://127\.0\.0\.1:9\."):
        asked("http://127.0.0.1:9/", "right")
