"""Another server that speaks OpenAI's protocol, whose answers a test writes down beforehand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

Reply = Callable[[BaseHTTPRequestHandler], None]


class ScriptedServer(ThreadingHTTPServer):
    """Gives the replies of `script` in order, the last one again and again, and keeps the requests in `received`."""

    daemon_threads = True
    request_queue_size = 1024  # hundreds come at once

    def __init__(self, *script: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = list(script)
        self.received: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Its address, as it is registered."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_reply(self) -> Reply:
        """The reply to the request that has just been received."""
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@contextmanager
def upstream(*script: Reply) -> Iterator[ScriptedServer]:
    """A scripted server on loopback, for as long as the block lasts."""
    with ScriptedServer(*script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def says(*words: str) -> Reply:
    """A stream of these words, one a chunk, with usage at the end."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, 200, "text/event-stream")
        for word in words:
            _event(handler, {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        _event(handler, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        _event(handler, {"choices": [], "usage": usage})
        handler.wfile.write(b"data: [DONE]\n\n")

    return reply


def refuses(status: int, **headers: str) -> Reply:
    """An error of this status."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, status, "application/json", **headers)
        handler.wfile.write(b'{"error": {"message": "not now", "type": "server_error"}}')

    return reply


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast(ScriptedServer, self.server)
        server.received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        server.next_reply()(self)

    def log_message(self, *_: object) -> None:
        pass


def _head(handler: BaseHTTPRequestHandler, status: int, kind: str, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("connection", "close")
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.close_connection = True


def _event(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    chunk = {"id": "upstream", "object": "chat.completion.chunk", "created": 0, "model": "its-own-name", **body}
    handler.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
