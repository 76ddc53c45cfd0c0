"""What strangers may cost before anybody knows who is calling: bytes and seconds of a request's head, and connections.

uvicorn bounds none of these: an endless header would fill the memory, and silent connections use up the descriptors.
"""

import asyncio
import resource
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from galerne.gateway import GONE, Gone

_LARGEST_HEAD = 64 * 1024
_HEAD_TIMEOUT_S = 15.0
_KEPT_DESCRIPTORS = 128  # for engines, database and files
_MOST_CONNECTIONS = 20_000


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol without heads above 64 KiB (400), heads that take longer than 15 s, or too many connections.

    It also tells the gateway at once when a caller hangs up.

    `limit_concurrency` of uvicorn's configuration is the number of connections.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        self._gone: list[Gone] = []
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)
        for gone in self._gone:
            gone.tell()

    def data_received(self, data: bytes) -> None:
        if not self._awaits_head:
            super().data_received(data)
            return
        self._head_bytes += len(data)
        super().data_received(data)
        # Asked afterwards: what came may have held the whole head, and the beginning of a body with it.
        if self._awaits_head and self._head_bytes > _LARGEST_HEAD:
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        if self._head_timer is None:
            self._wait_for_head()
        super().on_message_begin()
        if not self._unanswered:
            self._gone.clear()
        gone = Gone()
        self._gone.append(gone)  # more than one only where a client sends requests before it has its answers
        cast(dict[str, Any], self.scope)["extensions"] = {GONE: gone}

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    @property
    def _unanswered(self) -> bool:
        cycle = cast(RequestResponseCycle | None, self.cycle)  # uvicorn forgets that there is none at first
        return cycle is not None and not cycle.response_complete

    @property
    def _awaits_head(self) -> bool:
        return self._head_timer is not None

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(_HEAD_TIMEOUT_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self.transport.abort()


def most_connections() -> int:
    """How many connections this process can hold, after raising its limit of open files as far as it may.

    Each may need a second descriptor, for the engine that answers it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(16, min(_MOST_CONNECTIONS, (soft - _KEPT_DESCRIPTORS) // 2))
