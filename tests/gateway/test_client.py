"""The client for engines: what a server may do wrong must stay with the request that met it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from galerne.gateway.upstream import refusal
from galerne.kernel.http_client import Address, Answer, Client

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncGenerator[Address]:
    writers: list[asyncio.StreamWriter] = []

    async def remember(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(remember, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def asked(reader: asyncio.StreamReader) -> bool:
    """Whether one more request has come, none of which has a body."""
    try:
        await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return False
    return True


async def whole(answer: Answer) -> bytes:
    found = b""
    while part := await answer.read():
        found += part
    answer.close()
    return found


async def test_a_connection_whose_answer_was_not_read_is_not_used_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000)
        while await asked(reader):
            writer.write(FINE)

    client = Client()
    async with serving(serve) as address, asyncio.timeout(5):
        unread = await client.send(address, HEAD, b"", 5)
        while not unread.complete:  # noqa: ASYNC110 - reading, which would wait for the end, is what must not happen
            await asyncio.sleep(0.01)
        unread.close()
        again = await client.send(address, HEAD, b"", 2)
        assert len(await whole(again)) == 300_000, "of a new connection, whose first answer is long"
        assert await whole(await client.send(address, HEAD, b"", 2)) == b"fine"
        client.close()


async def test_what_comes_behind_an_answer_reaches_nobody() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await asked(reader)
        if connections == 1:
            writer.write(FINE + b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nstray")
        while connections == 1 and await asked(reader):
            pass
        writer.write(FINE)

    client = Client()
    async with serving(serve) as address, asyncio.timeout(5):
        assert await whole(await client.send(address, HEAD, b"", 2)) == b"fine"
        assert await whole(await client.send(address, HEAD, b"", 2)) == b"fine"
        assert connections == 2
        client.close()


async def test_an_answer_that_is_closed_twice_gives_its_connection_to_one_request() -> None:
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(served)
        served.append(0)
        while await asked(reader):
            served[number] += 1
            writer.write(FINE)

    client = Client()
    async with serving(serve) as address, asyncio.timeout(5):
        first = await client.send(address, HEAD, b"", 2)
        assert await whole(first) == b"fine"
        first.close()
        second, third = await asyncio.gather(client.send(address, HEAD, b"", 2), client.send(address, HEAD, b"", 2))
        assert (await whole(second), await whole(third)) == (b"fine", b"fine")
        first.close()
        assert served == [2, 1]
        client.close()


async def test_a_refusal_without_end_is_hung_up_on_when_nobody_waits_for_it() -> None:
    hung_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 10\r\n\r\nhalf")
        with suppress(ConnectionError):
            await reader.read()
        hung_up.set()

    client = Client()
    async with serving(serve) as address:
        answer = await client.send(address, HEAD, b"", 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await refusal(answer)
        async with asyncio.timeout(2):
            await hung_up.wait()
        client.close()
