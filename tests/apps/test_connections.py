import asyncio
import socket
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from galerne.apps import connections
from galerne.apps.connections import bounded_http, most_connections
from galerne.apps.direct import DirectCaller

HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[int]:
    monkeypatch.setattr(connections, "_HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connections, "_REST_TIMEOUT_S", 0.3)
    config = uvicorn.Config(
        PlainTextResponse("hello"),
        http=cast(Any, bounded_http(cast(Any, None))),
        limit_concurrency=4,
        lifespan="off",
        log_config=None,
        ws="none",
    )
    server = uvicorn.Server(config)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        task = asyncio.create_task(server._serve([listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await task


async def talk(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(4096), 5)
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


async def test_an_ordinary_request_is_answered(port: int) -> None:
    assert b"200 OK" in await talk(port, HELLO)


async def test_a_head_that_comes_in_pieces_is_answered(port: int) -> None:
    assert b"200 OK" in await talk(port, HELLO[:5], HELLO[5:20], HELLO[20:])


@pytest.mark.parametrize("head", [b"GET /" + b"a" * 200_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000])
async def test_a_head_without_end_is_refused_before_it_fills_the_memory(port: int, head: bytes) -> None:
    assert await talk(port, head) in (b"reset",) or b"400" in await talk(port, head)


async def test_a_body_may_be_larger_than_a_head(port: int) -> None:
    body = b"b" * 300_000
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert b"200 OK" in await talk(port, head, body)


async def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    assert await talk(port) in (b"", b"reset")


async def test_a_second_head_on_a_connection_must_be_whole_in_time_too(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO)
    assert b"hello" in await asyncio.wait_for(reader.read(4096), 5)
    writer.write(HELLO[:10])
    with pytest.raises((ConnectionError, EOFError)):
        (await asyncio.wait_for(reader.readexactly(1), 3))
    writer.close()


@pytest.mark.parametrize("announced", [0, 1000])
async def test_what_is_no_request_behind_an_answer_does_not_keep_a_connection(port: int, announced: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % announced)
    assert b"hello" in await reader.read(4096)
    writer.write(b"\r\n")  # empty lines, or two bytes of a body that was not waited for
    async with asyncio.timeout(3):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_requests_sent_before_their_answers_are_answered_in_order_and_bounded(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HELLO * 100)
    found = b""
    while found.count(b"hello") < 100:
        found += await reader.read(65_536)
    writer.write(HELLO * 3000)
    async with asyncio.timeout(3):
        with suppress(ConnectionError):
            found = await reader.read()
    assert found.count(b"hello") < 3000, "the connection of whoever sends without end is closed"
    writer.close()


async def test_connections_beyond_the_limit_are_closed_and_room_comes_back(port: int) -> None:
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
    assert await talk(port, HELLO) in (b"", b"reset")
    for _, writer in held:
        writer.close()
    await asyncio.sleep(0.1)
    assert b"200 OK" in await talk(port, HELLO)


def test_the_number_of_connections_leaves_descriptors_for_engines() -> None:
    assert 16 <= most_connections() <= 20_000


async def test_a_body_that_comes_in_tiny_chunks_takes_little_more_than_its_bytes() -> None:
    flow = SimpleNamespace(pause_reading=lambda: None, resume_reading=lambda: None)
    caller = DirectCaller(SimpleNamespace(transport=None, flow=flow), "/v1/chat/completions", [])
    tracemalloc.start()
    try:
        for number in range(50_000):
            caller.part_came(b"%02x" % (number % 256))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 4 * 100_000
    caller.part_came(b"a" * 5_000)
    caller.part_came(b"bc")
    caller.end_came()
    assert (
        await caller.body(200_000)
        == bytes(range(256)).hex().encode() * 195 + bytes(range(80)).hex().encode() + b"a" * 5_000 + b"bc"
    )
