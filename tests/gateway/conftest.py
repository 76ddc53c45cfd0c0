"""A gateway before a mock engine, for every test of the data plane."""

import re
import shutil
from collections.abc import AsyncGenerator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from galerne.gateway import Replica, reservations
from galerne.kernel import Database, fresh_cache
from galerne.kernel.logs import captured_logs
from tests.gateway.installation import Installation, model, running_gateway
from tests.gateway.upstream import BEHAVIOURS, REFUSALS, MockEngine, running_engine

MODELS = (
    *(model(name) for name in (*BEHAVIOURS, *REFUSALS, "never-answers")),
    model("embedder", kind="embedding", capabilities=frozenset({"embeddings"})),
    model("short-embedder", kind="embedding", capabilities=frozenset({"embeddings"})),
    model("sees", upstream_model="normal", capabilities=frozenset({"completion_chat", "vision"})),
    model("embedded", engine="llamacpp", upstream_model="normal", aliases=("embedded-latest",)),
    model("no-fim", engine="llamacpp", capabilities=frozenset({"completion_chat"})),
)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a busy machine holds up for a second is not away: only the tests of outages wait as production does."""
    for module in (fresh_cache, reservations):
        monkeypatch.setattr(module, "_PATIENCE_S", 8.0)
    monkeypatch.setattr(fresh_cache, "_GIVEN_UP_S", 8.0)


@pytest.fixture
async def engine() -> AsyncGenerator[MockEngine]:
    async with running_engine() as engine:
        yield engine


@pytest.fixture
async def sqlite(sqlite_template: Path, tmp_path: Path) -> AsyncGenerator[Database]:
    """A fresh database, for tests of the wire: what touches a table is tested on both kinds, with `gateway_on_both`."""
    path = tmp_path / "galerne.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite+aiosqlite:///{path}")
    yield database
    await database.close()


@pytest.fixture
async def gateway(sqlite: Database, engine: MockEngine) -> AsyncGenerator[Installation]:
    async with running_gateway(sqlite, Replica(id="r", base_url=engine.base_url), MODELS) as running:
        yield running


@pytest.fixture
async def gateway_on_both(database: Database, engine: MockEngine) -> AsyncGenerator[Installation]:
    async with running_gateway(database, Replica(id="r", base_url=engine.base_url), MODELS) as running:
        yield running


@pytest.fixture
async def impatient(sqlite: Database, engine: MockEngine) -> AsyncGenerator[Installation]:
    """A gateway that waits for an engine no longer than a test can."""
    replica = Replica(id="r", base_url=engine.base_url)
    async with running_gateway(sqlite, replica, MODELS, idle_timeout_s=1.0, first_byte_timeout_s=1.5) as running:
        yield running


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[list[MutableMapping[str, Any]]]:
    """Every log line of a test; whatever a test does, none may hold a prompt, an answer or a key."""
    with captured_logs() as lines:
        yield lines
    written = repr(lines) + caplog.text
    for secret in ("Who are you", "Bonjour", "upstream-secret", "Traceback"):
        assert secret not in written
    assert not re.search(r"gal_[0-9A-Za-z]{9}", written), "more than a key's visible prefix was logged"
