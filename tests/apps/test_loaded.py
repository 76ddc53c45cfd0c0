"""What a server must not load before somebody needs it: it would hold it for as long as it runs (ADR 24)."""

import asyncio
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from galerne.kernel import Database, Settings
from tests.serving import Answer, Server, serving
from tests.upstreams import says, upstream

HEAVY = (
    *("alembic", "aiohttp", "cryptography", "fastapi", "jsonschema", "matplotlib", "numpy", "rich", "structlog"),
    *("torch", "transformers", "xllamacpp"),
)
CONTROL = re.compile(
    r"galerne\.(apps\.(control_plane|refusals|routes)"
    r"|kernel\.(web|ciphers)"
    r"|governance\.access"
    r"|(identity|ledger|metering|billing)\.(\w+_)?(routes|schemas)"
    r"|billing\.(budgets|contracts|costs|documents|invoice_usage|invoices|payments|proof|subscriptions)"
    r")\b"
)


def loaded_by(module: str) -> list[str]:
    said = f"import sys, galerne.apps.cli, {module}; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_a_server_loads_nothing_heavy_that_it_does_not_serve_with(command: str) -> None:
    loaded = loaded_by(f"galerne.apps.commands.{command}")
    assert "galerne.gateway" in loaded
    assert [name for name in loaded if name in HEAVY or CONTROL.match(name)] == []


def test_the_control_plane_is_what_a_server_goes_without() -> None:
    loaded = loaded_by("galerne.apps.control_plane")
    assert "fastapi" in loaded
    assert len([name for name in loaded if CONTROL.match(name)]) > 50


def test_a_server_loads_the_control_plane_when_something_of_it_is_first_asked_for(tmp_path: Path) -> None:
    data, told = tmp_path / "d", {"PYTHONPROFILEIMPORTTIME": "1"}  # each module, once imported, on standard error
    asyncio.run(schema_made(data))
    with upstream(says("word")) as other, serving(data, "--no-engines", environment=told) as server:
        server.add_upstream("remote", other.url)
        body = {"model": "remote", "messages": [{"role": "user", "content": "Hello"}]}
        assert server.call("POST", "/v1/chat/completions", body).status == 200
        assert [server.call("GET", f"/{path}").status for path in ("v1/models", "readyz", "metrics")] == [200] * 3
        assert server.call("GET", "/v1/admin/usage", key=None).status == 401
        assert control_modules(server.logged()) == []
        assert [answer.status for answer in at_once(server, "/v1/admin/usage", "/v1/admin/balance")] == [200, 200]
        assert "fastapi" in control_modules(server.logged())
        assert server.logged().count('"event":"control plane loaded"') == 1


async def schema_made(data: Path) -> None:
    database = Database(Settings(data=data).resolved_database_url)
    await database.migrate()
    await database.close()


def control_modules(log: str) -> list[str]:
    imported = (line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:"))
    return [name for name in imported if name == "fastapi" or CONTROL.match(name)]


def at_once(server: Server, *paths: str) -> list[Answer]:
    with ThreadPoolExecutor(len(paths)) as callers:
        return list(callers.map(lambda path: server.call("GET", path), paths))
