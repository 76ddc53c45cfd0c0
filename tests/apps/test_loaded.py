"""What a server must not load: it would hold it for as long as it runs."""

import subprocess
import sys

import pytest

HEAVY = ("alembic", "aiohttp", "matplotlib", "numpy", "rich", "structlog", "torch", "transformers", "xllamacpp")


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_a_server_loads_nothing_heavy_that_it_does_not_serve_with(command: str) -> None:
    said = f"import sys, galerne.apps.cli, galerne.apps.commands.{command}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout.split()
    assert "galerne.gateway" in loaded
    assert [name for name in loaded if name in HEAVY] == []
