"""Callers of the inference paths without ASGI between: for these few paths its messages cost as much as the gateway.

A `DirectCaller` is the gateway's `Caller` and, for uvicorn's protocol, what it calls a cycle. Everything rare
(pipelined requests, HTTP/1.0, `Expect`, upgrades) takes the way of ASGI instead.
"""

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from galerne.gateway import STALL_S, Caller, Gone, HungUp

__all__ = ["DirectCaller"]

_CLOSE = (b"connection", b"close")
_SMALL_PART = 4096
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus}


class DirectCaller(Caller):
    """One POST request on `http`, a `BoundedHttp`; its answer is written with as few system calls as it has parts."""

    def __init__(self, http: Any, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__("POST", path, headers, Gone())
        self._http = http
        self._transport = http.transport
        self._flow = http.flow
        self._parts: list[bytes | bytearray] = []
        self._size = 0
        self._complete = False
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._chunked = False
        # What uvicorn asks of a cycle.
        self.keep_alive = True
        self.response_complete = False
        self.disconnected = False

    @property
    def message_event(self) -> "DirectCaller":
        """uvicorn: what to `set`. An attribute would be a reference to itself, which only the collector finds."""
        return self

    def set(self) -> None:
        """uvicorn: something has come, or the connection is gone."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def part_came(self, part: bytes) -> None:
        """Some of the body has come; nothing is read from the connection while much of it waits here."""
        if self._parts and len(part) < _SMALL_PART:
            # An object each would take twenty times the bytes of a body that comes two by two.
            last = self._parts[-1]
            if isinstance(last, bytearray):
                last += part
            else:
                self._parts.append(bytearray(part))
        else:
            self._parts.append(part)
        self._size += len(part)
        if self._size > 65_536:
            self._flow.pause_reading()
        self.set()

    def end_came(self) -> None:
        """The body is complete."""
        self._complete = True
        self.set()

    def _here(self, limit: int) -> bytes | None:
        if not self._complete or len(self._parts) != 1 or self._size > limit:
            return None
        return bytes(self._parts.pop())

    async def _read(self, limit: int) -> bytes:
        parts: list[bytes | bytearray] = []
        size = 0
        while True:
            parts += self._parts
            size += self._size
            self._parts, self._size = [], 0
            if size > limit:
                raise self.too_large(limit)
            if self._complete:
                return b"".join(parts)
            await self._more()

    async def _skip(self, most: int) -> None:
        skipped = 0
        while not self._complete and skipped < most:
            skipped += self._size
            self._parts, self._size = [], 0
            await self._more()

    async def _more(self) -> None:
        if self.disconnected:
            raise HungUp("The client closed the connection.")
        self._flow.resume_reading()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.ended = True
        await self._end(self._head_of(status, headers, b"content-length: %d\r\n\r\n" % len(body)) + body)

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status
        self._head = self._head_of(status, headers, b"transfer-encoding: chunked\r\n\r\n")

    def write_now(self, part: bytes) -> bool:
        head, self._head = self._head, b""
        if self.disconnected:
            return True
        self._transport.write(b"%b%x\r\n%b\r\n" % (head, len(part), part))
        return not self._flow.write_paused

    async def caught_up(self) -> None:
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()

    async def finish(self, part: bytes) -> None:
        self.ended = True
        head, self._head = self._head, b""
        chunk = b"%x\r\n%b\r\n" % (len(part), part) if part else b""
        await self._end(b"%b%b0\r\n\r\n" % (head, chunk))

    async def _end(self, last: bytes) -> None:
        if not self.disconnected:
            self._transport.write(last)
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self._http.on_response_complete()
        if self._flow.write_paused and not self.disconnected:
            try:
                async with asyncio.timeout(STALL_S):
                    await self._flow.drain()
            except TimeoutError as error:
                self._transport.abort()
                raise HungUp("The client has stopped reading.") from error

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]], last: bytes) -> bytes:
        all_headers = (*self._http.server_state.default_headers, *headers)
        if _CLOSE in all_headers:
            self.keep_alive = False
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
        return b"\r\n".join([line, *map(b": ".join, all_headers), last])
