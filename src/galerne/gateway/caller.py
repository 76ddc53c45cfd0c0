"""One HTTP caller as ASGI shows it: headers, body within a limit, answers whole or in parts, and its hanging up."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from galerne.kernel import BadRequest, GalerneError, TooLarge, later

__all__ = [
    "GONE",
    "STALL_S",
    "AsgiCaller",
    "Caller",
    "Gone",
    "Headers",
    "HungUp",
    "Receive",
    "RequestTimedOut",
    "Scope",
    "Send",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_BODY_TIMEOUT_S = 30.0
_SKIP_TIMEOUT_S = 10.0
_MOST_SKIPPED_BYTES = 64 * 1024 * 1024
GONE = "galerne.gone"
"""The extension of ASGI by which the server tells of a hang-up at once: a `Gone` in the scope's `extensions`."""

STALL_S = 60.0
"""How long a client may read nothing: an engine must not wait for ever for somebody who merely holds a connection."""


class RequestTimedOut(GalerneError):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"


class HungUp(GalerneError):
    """The caller went away, or stopped reading; nobody reads this."""

    status = 499
    code = "client_closed_request"


class Gone:
    """Where a server says that a caller has hung up; `callback` is whoever wants to know now.

    Waiting for ASGI's `http.disconnect` instead takes a task for each request, a fifth of what a request may cost.
    """

    __slots__ = ("callback", "happened")

    def __init__(self) -> None:
        self.callback: Callable[[], object] | None = None
        self.happened = False

    def tell(self) -> None:
        """The caller has hung up."""
        self.happened = True
        if self.callback is not None:
            self.callback()


class Caller(ABC):
    """One request and its answer; `status` is what was answered, 0 before; `ended` once its last part is on its way."""

    def __init__(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], gone: Gone) -> None:
        self.method = method
        self.path = path
        self.headers = dict(headers)
        self.gone = gone
        self.status = 0
        self.ended = False
        self.user_agent = self.headers.get(b"user-agent", b"").decode("latin-1")
        self._stalled = False

    async def body(self, limit: int) -> bytes:
        """The whole body; `TooLarge` as soon as more than `limit` bytes are announced or seen, reading no further."""
        if self.headers.get(b"content-encoding", b"identity") not in (b"identity", b""):
            raise BadRequest("The body must not be compressed.", code="unsupported_encoding")
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise self.too_large(limit)
        if (here := self._here(limit)) is not None:
            return here
        late = later(_BODY_TIMEOUT_S, self._give_up, asyncio.current_task())
        try:
            return await self._read(limit)
        except asyncio.CancelledError as error:
            if self._stalled:
                raise RequestTimedOut("The body did not arrive in time.") from error
            raise
        finally:
            late.cancel()

    def _here(self, limit: int) -> bytes | None:
        """The whole body, if all of it has come."""
        return None

    @abstractmethod
    async def _read(self, limit: int) -> bytes: ...

    async def skip_body(self) -> None:
        """Read and drop the rest of a refused body, within bounds: a client that still writes reads no answer."""
        with suppress(TimeoutError, HungUp):
            async with asyncio.timeout(_SKIP_TIMEOUT_S):
                await self._skip(_MOST_SKIPPED_BYTES)

    @abstractmethod
    async def _skip(self, most: int) -> None: ...

    @abstractmethod
    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""

    @abstractmethod
    def begin(self, status: int, headers: Headers) -> None:
        """Begin an answer that comes in parts; nothing needs to be sent before its first one."""

    @abstractmethod
    def write_now(self, part: bytes) -> bool:
        """Send one part of many; whether there may be more before `caught_up`."""

    @abstractmethod
    async def caught_up(self) -> None:
        """Returns when the transport has taken what was written, however long that lasts."""

    @abstractmethod
    async def finish(self, part: bytes) -> None:
        """Send the last part; `HungUp` for a caller who has stopped reading."""

    def _give_up(self, task: "asyncio.Task[object] | None") -> None:
        self._stalled = True
        if task is not None:
            task.cancel()

    @staticmethod
    def too_large(limit: int) -> TooLarge:
        """What a caller is told whose body has more than `limit` bytes."""
        return TooLarge(f"The body is larger than the {limit} bytes that this server takes.")


class AsgiCaller(Caller):
    """A caller as ASGI shows it; every part of an answer has to be waited for."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = scope.get("extensions", {}).get(GONE) or Gone()  # a server without it never tells
        super().__init__(scope["method"], scope["path"], scope["headers"], gone)
        self._unread = True
        self._waiting: list[MutableMapping[str, Any]] = []
        self._receive = receive
        self._send = send

    async def _read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._unread:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise HungUp("The client closed the connection.")
            part = message.get("body", b"")
            size += len(part)
            self._unread = message.get("more_body", False)
            if size > limit:
                raise self.too_large(limit)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _skip(self, most: int) -> None:
        skipped = 0
        while self._unread and skipped < most:
            message = await self._receive()
            skipped += len(message.get("body", b""))
            self._unread = message.get("more_body", False)

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.begin(status, (*headers, (b"content-length", b"%d" % len(body))))
        await self.finish(body)

    def begin(self, status: int, headers: Headers) -> None:
        self.status = status
        self._waiting.append({"type": "http.response.start", "status": status, "headers": list(headers)})

    def write_now(self, part: bytes) -> bool:
        self._waiting.append({"type": "http.response.body", "body": part, "more_body": True})
        return False

    async def caught_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            await self._send(message)

    async def finish(self, part: bytes) -> None:
        self.ended = True
        stalled = later(STALL_S, self._give_up, asyncio.current_task())
        try:
            await self.caught_up()
            await self._send({"type": "http.response.body", "body": part, "more_body": False})
        except asyncio.CancelledError as error:
            if self._stalled:
                raise HungUp("The client has stopped reading.") from error
            raise
        finally:
            stalled.cancel()
