"""Knows how to read server-sent events off a unix socket with little work for each: one request, one connection.

A token of a small model takes less than a millisecond; a general HTTP client would spend a tenth of that on reading it.
What is understood here is what llama.cpp's server sends: a status line, headers, and a chunked or plain body
(RFC 9112, sections 4 and 7.1).
"""

import asyncio
from pathlib import Path
from typing import cast

from galerne.engines.failures import EngineFailed

_EVENT_END = b"\n\n"
_LINE_END = b"\r\n"


class EventStream(asyncio.Protocol):
    """One exchange: sends a request, then hands out the events of the answer as they arrive.

    `status` is the answer's status code once `opened` has returned; `closed` ends the exchange early.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False
        self._raw = bytearray()
        self._body = bytearray()
        self._chunked = False
        self._left = 0  # bytes of the current chunk that are still to come, with its line end
        self.status = 0

    @classmethod
    async def opened(cls, socket: Path, path: str, body: bytes) -> "EventStream":
        """A stream whose status is known; raises `EngineFailed` when nobody answers at `socket`."""
        head = f"POST {path} HTTP/1.1\r\nHost: native\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.create_unix_connection(lambda: cls(head.encode() + body), str(socket))
        except OSError as error:
            raise EngineFailed(f"the native server does not answer: {error.strerror}") from error
        try:
            while not stream.status:
                await stream._news()  # noqa: SLF001 - a private part of this same class
        except BaseException:
            stream.closed()
            raise
        return stream

    async def events(self) -> list[bytes]:
        """The events that have arrived, each without its end; waits for the first one, empty at the end of the body."""
        while _EVENT_END not in self._body:
            if self._ended:
                return []
            await self._news()
        *events, rest = bytes(self._body).split(_EVENT_END)
        self._body = bytearray(rest)
        return events

    async def rest(self) -> bytes:
        """Everything that has not been handed out, once the answer is complete."""
        while not self._ended:
            await self._news()
        return bytes(self._body)

    def closed(self) -> None:
        """Closes the connection: whoever works for it stops."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Takes in what has arrived."""
        self._raw += data
        if not self.status and not self._head():
            return
        if self._chunked:
            self._chunks()
        else:
            self._body += self._raw
            self._raw.clear()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notes that nothing more will come."""
        self._ended = True
        self._wake()

    async def _news(self) -> None:
        if self._ended:
            raise EngineFailed("the native server broke off")
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _head(self) -> bool:
        head, end, rest = bytes(self._raw).partition(_LINE_END * 2)
        if not end:
            return False
        self.status = int(head.split(b" ", 2)[1])
        self._chunked = b"transfer-encoding: chunked" in head.lower()
        self._raw = bytearray(rest)
        return True

    def _chunks(self) -> None:
        while self._raw:
            if self._left > len(_LINE_END):
                taken = self._raw[: self._left - len(_LINE_END)]
                self._body += taken
                self._left -= len(taken)
                del self._raw[: len(taken)]
            elif self._left:
                passed = min(self._left, len(self._raw))
                self._left -= passed
                del self._raw[:passed]
            else:
                line, end, _ = self._raw.partition(_LINE_END)
                if not end:
                    return
                size = int(line.split(b";")[0], 16)
                self._left = size + len(_LINE_END)
                del self._raw[: len(line) + len(_LINE_END)]
                self._ended = self._ended or size == 0
