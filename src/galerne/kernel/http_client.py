"""A keep-alive HTTP/1.1 client whose answers are streamed: asyncio, httptools, and no more than that.

aiohttp spends 2.5 times the CPU for the same request (docs/log.md), and this is the data plane's largest cost; it also
fills 8 MB. This knows plain and TLS connections and unix sockets, and every method whose answer may have a body (not
HEAD); it follows no redirect, keeps no cookie, unpacks nothing, and sets no time limit for the body: whoever reads
holds the clock.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httptools
from msgspec import Struct

from galerne.kernel.wheel import later

__all__ = ["Address", "Answer", "Client", "Lost", "NotConnected", "request_to"]

_CONNECT_TIMEOUT_S = 5.0
_IDLE_S = 15.0
_MOST_IDLE = 1024
_BUFFERED = 256 * 1024
_LARGEST_HEAD = 64 * 1024


class NotConnected(Exception):
    """No connection could be made: nothing was sent."""


class Lost(Exception):
    """The connection ended, or what came over it was not HTTP."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host and port, with TLS or without, or a unix socket's path.

    `ip` is connected to instead of asking a name server for `host`, whose name the certificate must have all the same.
    """

    host: str
    port: int
    tls: bool = False
    socket: str | None = None
    ip: str | None = None


def request_to(method: str, url: str, headers: Mapping[str, str], socket: Path | None = None) -> tuple[Address, bytes]:
    """Where `url` points, or `socket` in its stead, and the head of a request to its path; a query is left out.

    Raises `ValueError` for an address that is none and for headers that cannot be sent.
    """
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    address = Address(parts.hostname or "", parts.port or (443 if tls else 80), tls, str(socket) if socket else None)
    lines = [
        f"{method} {quote(parts.path or '/', safe='/%:@!$&()*+,;=~-._')} HTTP/1.1",
        f"host: {parts.netloc.rpartition('@')[2]}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if not all(line.isprintable() for line in lines):
        raise ValueError("a header cannot hold this")
    return address, "".join(f"{line}\r\n" for line in lines).encode("ascii")


class Client:
    """Connections to any number of servers; idle ones are used again, the youngest first, and closed after 15 s.

    `tls` says whom to trust; by default whomever this machine trusts.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._idle: dict[Address, deque[_Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, address: Address, head: bytes, body: bytes | None, within_s: float) -> "Answer":
        """The answer, its body yet to be read. `head` is complete up to the body's length; None is no body at all.

        Raises `NotConnected` when nothing was sent, `Lost` when the server may have seen the request, `TimeoutError`
        when it does not begin to answer within `within_s`.
        """
        connection = self._take(address) or await self._connect(address)
        answer = Answer(connection, asyncio.get_running_loop().create_future())
        connection.begin(answer)
        connection.transport.write(
            head + b"\r\n" if body is None else head + b"content-length: %d\r\n\r\n" % len(body) + body
        )
        late = later(within_s, answer.fail, TimeoutError())
        try:
            await answer.began()
        except BaseException:
            connection.abort()
            raise
        finally:
            late.cancel()
        return answer

    def close(self) -> None:
        """Close every idle connection, and each other one when its answer has been read."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.transport.close()
        self._idle.clear()

    def _take(self, address: Address) -> "_Connection | None":
        connections = self._idle.get(address)
        while connections:
            connection = connections.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    async def _connect(self, address: Address) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if address.socket is not None:
                    _, connection = await loop.create_unix_connection(self._protocol(address), address.socket)
                else:
                    tls = (self._tls or _tls.context) if address.tls else None
                    name = address.host if tls is not None else None
                    _, connection = await loop.create_connection(
                        self._protocol(address), address.ip or address.host, address.port, ssl=tls, server_hostname=name
                    )
        except (OSError, TimeoutError, ssl.SSLError, UnicodeError) as error:  # UnicodeError: a name that no host has
            raise NotConnected(type(error).__name__) from error
        return connection

    def _protocol(self, address: Address) -> Any:
        return lambda: _Connection(self, address)

    def give_back(self, connection: "_Connection") -> None:
        """Keep a connection whose answer was read to its end."""
        connections = self._idle.setdefault(connection.address, deque())
        if self._closed or len(connections) >= _MOST_IDLE:
            connection.transport.close()
            return
        connection.idle_since_s = monotonic()
        connections.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_IDLE_S, self._close_old)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        since_s = monotonic() - _IDLE_S
        for address, connections in list(self._idle.items()):
            while connections and (connections[0].idle_since_s <= since_s or connections[0].transport.is_closing()):
                connections.popleft().transport.close()
            if not connections:
                del self._idle[address]
        self._sweep = loop.call_later(_IDLE_S / 2, self._close_old) if self._idle else None


class _Tls:
    @cached_property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context()


_tls = _Tls()


class Answer(Struct, eq=False):
    """One answer: `status` and `headers` (lower-case names) once it is there, then its body in the parts that came."""

    connection: "_Connection"
    head: asyncio.Future[None]
    status: int = 0
    headers: dict[bytes, bytes] = {}
    complete: bool = False
    _parts: list[bytes] = []
    _size: int = 0
    _waiter: asyncio.Future[None] | None = None
    _failure: Exception | None = None
    _closed: bool = False
    _sink: Callable[[bytes], bool] | None = None

    async def began(self) -> None:
        """Returns when status and headers are there; raises what `fail` was told."""
        await self.head
        if not self.status and self._failure is not None:
            raise _another(self._failure)

    async def hand_over(self, sink: Callable[[bytes], bool]) -> None:
        """Give `sink` each part in the moment in which it comes, until it returns False, the body ends, or is lost.

        No task is woken for a part, which would cost more than most sinks do. What has come before, and what comes
        after, is for `read`: it returns at once while there is any.
        """
        if not self.waiting:
            return
        self._sink = sink
        try:
            await self.wait()
        finally:
            self._sink = None

    @property
    def waiting(self) -> bool:
        """Whether the next `read` has to wait."""
        return not (self._parts or self.complete or self._failure is not None)

    async def read(self) -> bytes:
        """What has come since the last call, at least one byte; nothing at the end. Raises `Lost`."""
        if self.waiting:
            await self.wait()
        return self.take()

    async def wait(self) -> None:
        """Until there is something to `take`."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """What `read` returns where it need not wait."""
        if self._parts:
            read = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            if self._size > _BUFFERED:
                self.connection.transport.resume_reading()
            self._size = 0
            return read
        if self._failure is not None:
            raise _another(self._failure)
        return b""

    async def read_all(self, at_most: int) -> bytes | None:
        """The body to its end; None when it is longer than `at_most` bytes. Raises `Lost`."""
        raw = b""
        while part := await self.read():
            raw += part
            if len(raw) > at_most:
                return None
        return raw

    def close(self) -> None:
        """Done with it: the connection is kept if the answer was read to its end, else closed. Twice is once."""
        if self._closed:
            return
        self._closed = True
        if self.complete and self._size <= _BUFFERED:  # else nothing more is read from it
            self.connection.release()
        else:
            self.connection.abort()

    def headers_came(self, status: int) -> None:
        """The head is complete."""
        self.status = status
        if not self.head.done():
            self.head.set_result(None)

    def part_came(self, part: bytes) -> None:
        """Some of the body came."""
        if self._sink is not None:
            if not self._sink(part):
                self._sink = None
                self._wake()
            return
        self._parts.append(part)
        self._size += len(part)
        if self._size > _BUFFERED:
            self.connection.transport.pause_reading()
        self._wake()

    def end_came(self) -> None:
        """The body is complete."""
        self.complete = True
        self._wake()

    def fail(self, failure: Exception) -> None:
        """The connection ended before the answer did; what came before is still read first."""
        if self.complete:
            return
        self._failure = failure
        if not self.head.done():
            self.head.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _another(failure: Exception) -> Exception:
    # One that is kept and raised would hold the frames that it went through, which hold whoever keeps it.
    return type(failure)(*failure.args)


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, client: Client, address: Address) -> None:
        self.address = address
        self.idle_since_s = 0.0
        self._client = client
        self._answer: Answer | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._bytes_without_body = 0
        self._keep = True
        self._until_eof = False

    def begin(self, answer: Answer) -> None:
        self._answer = answer
        self._head_bytes = self._bytes_without_body = 0

    def release(self) -> None:
        self._answer = None
        if self._keep and not self.transport.is_closing():
            self._client.give_back(self)
        else:
            self.transport.close()

    def abort(self) -> None:
        self._answer = None
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.transport.abort()  # a server that speaks unasked is not to be trusted with the next request
            return
        self._bytes_without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._lose("what came is not HTTP")
        if self._head_bytes > _LARGEST_HEAD or self._bytes_without_body > _LARGEST_HEAD:
            self._lose("the answer's head is too large")

    def eof_received(self) -> None:
        if self._answer is not None and self._until_eof:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.fail(Lost("the connection ended"))
            self._answer = None
        self._parser = None  # it holds this, and only the collector would part them

    # httptools

    def on_message_begin(self) -> None:
        if self._answer is None:
            self._keep = False  # more than was asked for came with the end of the answer

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._answer is not None and self._head_bytes <= _LARGEST_HEAD:
            self._answer.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        if self._answer is None:
            return
        if self._head_bytes > _LARGEST_HEAD:
            self._lose("the answer's head is too large")
            return
        headers = self._answer.headers
        if status < 200:  # 100 Continue and its like come before the answer
            headers.clear()
            return
        self._keep = bool(self._parser.should_keep_alive())
        self._until_eof = b"content-length" not in headers and b"transfer-encoding" not in headers
        self._answer.headers_came(status)

    def on_body(self, body: bytes) -> None:
        self._bytes_without_body = 0
        if self._answer is not None:
            self._answer.part_came(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._end()

    def _end(self) -> None:
        if self._answer is not None:
            self._answer.end_came()
            self._answer = None

    def _lose(self, why: str) -> None:
        if self._answer is not None:
            self._answer.fail(Lost(why))
            self._answer = None
        self.transport.abort()
