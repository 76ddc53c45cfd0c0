import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from galerne.engines import EngineFailed
from galerne.engines.llamacpp.event_stream import EventStream
from galerne.engines.llamacpp.server import Sent, _send

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b'data: {"content": "a"}', b'data: {"content": "\xc3\xa9"}', b'data: {"stop": true}']


def _chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


@asynccontextmanager
async def _serving(path: Path, pieces: list[bytes]) -> AsyncIterator[Path]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nbody")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(answer, str(path))
    async with server:
        yield path


async def _read(path: Path) -> tuple[int, list[bytes]]:
    stream = await EventStream.opened(path, "/completion", b"body")
    try:
        seen: list[bytes] = []
        while events := await stream.events():
            seen += events
        return stream.status, seen
    finally:
        stream.closed()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("together", [True, False])
async def test_events_are_read_alike_however_they_are_cut(tmp_path: Path, size: int, together: bool) -> None:
    framed = [event + b"\n\n" for event in EVENTS]
    chunks = _chunk(b"".join(framed)) if together else b"".join(map(_chunk, framed))
    whole = HEAD + chunks + _chunk(b"")
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    async with _serving(tmp_path / "s.sock", pieces) as path:
        assert await _read(path) == (200, EVENTS)


async def test_refusal_without_chunks_is_read_whole(tmp_path: Path) -> None:
    answer = [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\n", b'{"error": "no"}']
    async with _serving(tmp_path / "s.sock", answer) as path:
        stream = await EventStream.opened(path, "/completion", b"body")
        assert (stream.status, await stream.rest()) == (400, b'{"error": "no"}')
        stream.closed()


async def test_answer_that_breaks_off_before_its_status_is_a_failure(tmp_path: Path) -> None:
    async with _serving(tmp_path / "s.sock", [b"HTTP/1.1 2"]) as path:
        with pytest.raises(EngineFailed, match="broke off"):
            await _read(path)


async def test_nobody_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="does not answer"):
        await _read(tmp_path / "none.sock")


async def test_failure_in_mid_stream_is_told_in_the_stream() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        raise EngineFailed("the native server broke off")

    sent: list[bytes] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(bytes(message.get("body", b"")))  # type: ignore[arg-type]

    sender: Callable[[dict[str, object]], Awaitable[None]] = send
    assert await _send(sender, Sent(pieces())) == "failed"
    told = b"".join(sent)
    assert told.startswith(b'data: {}\n\ndata: {"error":{"message":"the native server broke off"')
    assert not told.endswith(b"[DONE]\n\n")
