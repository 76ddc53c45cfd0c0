"""What strangers may cost before anybody knows who is calling: bytes and seconds of a request's head, and connections.

uvicorn bounds none of these: an endless header would fill the memory, and silent connections use up the descriptors.
"""

import asyncio
import resource
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from galerne.apps.direct import DirectCaller
from galerne.gateway import GONE, INFERENCE_PATHS, Gateway, Gone
from galerne.kernel import Deadline, later

_LARGEST_HEAD = 64 * 1024
_HEAD_TIMEOUT_S = 15.0
_REST_TIMEOUT_S = 30.0
_MOST_PIPELINED = 128
_KEPT_DESCRIPTORS = 128  # for engines, database and files
_MOST_CONNECTIONS = 20_000
_DIRECT_PATHS = {path.encode(): path for path in INFERENCE_PATHS}


def bounded_http(gateway: Gateway) -> Callable[..., "BoundedHttp"]:
    """What uvicorn's configuration takes as `http`: the protocol, with the gateway that it hands inference to."""
    return partial(BoundedHttp, gateway)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol without heads above 64 KiB (400), heads that take longer than 15 s, or too many connections;
    nor more than 128 requests that wait for the answer before theirs, nor 30 s of what is no request behind an answer.

    It also tells the gateway at once when a caller hangs up.

    `limit_concurrency` of uvicorn's configuration is the number of connections.
    """

    def __init__(self, gateway: Gateway, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._gateway = gateway
        self._direct: DirectCaller | None = None
        self._head_bytes = 0
        self._gone: list[Gone] = []
        self._awaits_head = False
        self._head_timer: Deadline | None = None
        self._rest_timer: Deadline | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            transport.abort()
            return
        self._awaits_head = True
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._rest_is_over()
        super().connection_lost(exc)
        for gone in self._gone:
            gone.tell()
        self._forget_requests()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        # Asked afterwards: what came may have held the whole head, and the beginning of a body with it.
        if not self._awaits_head:
            self._watch_rest()
        elif self._head_bytes > _LARGEST_HEAD:
            self.send_400_response("The head of the request is too large.")
        elif self._head_timer is None and not self.transport.is_closing():
            self._wait_for_head()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._awaits_head = True
        self._rest_is_over()
        # What uvicorn would do here too, but for the scope, which `_answer_by_asgi` makes for those who need one.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        if len(self.pipeline) >= _MOST_PIPELINED:
            self.transport.abort()
            return
        path = _DIRECT_PATHS.get(self.url)
        if path is None or self._unanswered or not self._is_plain_post():
            self._direct = None
            self._answer_by_asgi()
            return
        caller = self._direct = DirectCaller(self, path, self.headers)
        caller.keep_alive = cast(Any, self.parser).should_keep_alive()
        self._gone = [caller.gone]
        self.cycle = cast(RequestResponseCycle, caller)
        task = self.loop.create_task(self._gateway.answer(caller))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _answer_by_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        unanswered = 1 + len(self.pipeline) if self._unanswered else 0
        del self._gone[: max(0, len(self._gone) - unanswered)]
        gone = Gone()
        self._gone.append(gone)  # more than one only where a client sends requests before it has its answers
        cast(dict[str, Any], self.scope).update(headers=headers, extensions={GONE: gone})
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        # The same with a timer that costs less.
        self.server_state.total_requests += 1
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.timeout_keep_alive_task = cast(Any, later(self.timeout_keep_alive, self.timeout_keep_alive_handler))

    def on_body(self, body: bytes) -> None:
        if self._direct is None:
            super().on_body(body)
        elif not self._direct.response_complete:
            self._direct.part_came(body)

    def on_message_complete(self) -> None:
        if self._direct is None:
            super().on_message_complete()
        else:
            self._direct.end_came()

    def _is_plain_post(self) -> bool:
        parser: Any = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not parser.should_upgrade()
        )

    @property
    def _unanswered(self) -> bool:
        cycle = cast(RequestResponseCycle | None, self.cycle)  # uvicorn forgets that there is none at first
        return cycle is not None and not cycle.response_complete

    def _wait_for_head(self) -> None:
        self._head_timer = later(_HEAD_TIMEOUT_S, self._give_up)

    def _stop_waiting(self) -> None:
        self._awaits_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_rest(self) -> None:
        # uvicorn's own timer of an idle connection ends with the first byte of anything: of a body that nobody reads
        # because it was refused, or of empty lines.
        idle = not (self._awaits_head or self._unanswered or self.timeout_keep_alive_task)
        if idle and self._rest_timer is None and not self.transport.is_closing():
            self._rest_timer = later(_REST_TIMEOUT_S, self._give_up)

    def _rest_is_over(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _give_up(self) -> None:
        self.transport.abort()

    def _forget_requests(self) -> None:
        # Each holds this connection, so that together they would wait for the collector of cycles, and be many.
        self.pipeline.clear()
        self._gone.clear()
        self._direct = None
        self.cycle = cast(RequestResponseCycle, None)


def most_connections() -> int:
    """How many connections this process can hold, after raising its limit of open files as far as it may.

    Each may need a second descriptor, for the engine that answers it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(16, min(_MOST_CONNECTIONS, (soft - _KEPT_DESCRIPTORS) // 2))
