"""A request leaves nothing for the collector of cycles: what waits for it is memory that grows until it comes."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.gateway.installation import Installation

ROUNDS = 5
BODY = '{"model":"%s","stream":%s,"max_tokens":5,"messages":[{"role":"user","content":"Who are you?"}]}'


@contextmanager
def garbage() -> Generator[Counter[str]]:
    """What only the collector found of our own objects, of tasks and of frames: filled when the block has ended."""
    found = Counter[str]()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(filter(None, map(_name, gc.garbage)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _name(one: object) -> str | None:
    kind = type(one)
    if kind.__module__.startswith("galerne."):
        return f"{kind.__module__}.{kind.__qualname__}"
    code = getattr(one, "f_code", None) or getattr(one, "cr_code", None)
    return code.co_qualname if code is not None and "/galerne/" in code.co_filename else None


async def _asked(gateway: Installation, key: str, model: str, stream: bool, leaves: bool) -> None:
    address = urlsplit(gateway.base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    body = (BODY % (model, str(stream).lower())).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    if leaves:
        await reader.readuntil(b"data: ")
    else:
        await reader.read()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["normal", "says-400", "says-429", "says-500", "dies", "garbage", "unknown"])
async def test_whatever_becomes_of_a_request_it_leaves_no_cycle(
    gateway: Installation, model: str, stream: bool
) -> None:
    await _leaves_nothing(lambda: _asked(gateway, gateway.key, model, stream, leaves=False))


async def test_a_stream_that_is_left_leaves_no_cycle(gateway: Installation) -> None:
    await _leaves_nothing(lambda: _asked(gateway, gateway.key, "slow", True, leaves=True))


async def test_an_engine_that_never_answers_leaves_no_cycle(impatient: Installation) -> None:
    await _leaves_nothing(lambda: _asked(impatient, impatient.key, "never-answers", False, leaves=False))


async def test_wrong_keys_leave_no_cycle(gateway: Installation) -> None:
    numbers = iter(range(100))
    await _leaves_nothing(lambda: _asked(gateway, f"gal_{next(numbers):040}", "normal", False, leaves=False))


async def test_a_key_over_its_limit_leaves_no_cycle(gateway: Installation) -> None:
    key = await gateway.new_key(requests_per_minute=1)
    await _leaves_nothing(lambda: _asked(gateway, key, "normal", False, leaves=False))


async def _leaves_nothing(ask: Callable[[], Awaitable[None]]) -> None:
    await ask()  # what is made once for all, and a connection to the engine, are not a request's
    await asyncio.sleep(0.05)
    with garbage() as found:
        await asyncio.gather(*(ask() for _ in range(ROUNDS)))
        await asyncio.sleep(0.05)
    # One of a kind may be of a timer or a commit that happened to end just now; what each request leaves is more.
    assert {name: count for name, count in found.items() if count >= ROUNDS} == {}
