"""Which event loops the kernel's tests run on: the HTTP client's on both, as it is used on both."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    on_both = item.path.name == "test_http_client.py"
    return {"asyncio": asyncio.new_event_loop, **({"uvloop": uvloop.new_event_loop} if on_both else {})}
