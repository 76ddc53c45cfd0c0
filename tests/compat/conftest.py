"""One server for every test of this folder, and the two official clients as an application uses them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mistralai.client import Mistral
from openai import OpenAI

from tests.serving import Key, Server, serving

FOLDER = Path(__file__).parent
PRICES = ("--input", "0.3", "--cached", "0.03", "--output", "0.9", "--currency", "EUR")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # The first test waits for the server and its engines; the others share two busy cores with them.
        if item.path.is_relative_to(FOLDER) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("compat") / "data") as server:
        for model in ("brise", "minilm"):
            priced = server.cli("prices", "set", model, *PRICES)
            assert priced.returncode == 0, priced.stderr
        yield server


@pytest.fixture(scope="session")
def key(server: Server) -> Key:
    return server.new_key("compat")


@pytest.fixture(scope="session")
def openai(server: Server, key: Key) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.address}/v1", api_key=key.secret, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def mistral(server: Server, key: Key) -> Iterator[Mistral]:
    with Mistral(server_url=server.address, api_key=key.secret) as client:
        yield client
