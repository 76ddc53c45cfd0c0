"""A mock of another OpenAI-compatible server, as fast as Python allows: a raw protocol with ready-made answers.

The model's name picks the behaviour: `mock-short` answers with 600 bytes of text at once; `mock-64x20` streams 64
chunks 20 ms apart (0: all at once, as fast as they are taken). The text of each chunk of a stream is the moment at
which it was written (CLOCK_MONOTONIC, which all processes of a machine share), so that whoever reads it knows how long
it travelled. As vLLM and our own engine do when asked for running usage, every chunk carries it. The models of `FAULTS`
answer as upstreams do that are in trouble. `GET /stats` counts.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

SHORT = "mock-short"
CHUNKS = 64
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model":\s?"([a-z0-9-]+)"')
_STREAM = re.compile(rb'"stream":\s?true')
_SPACED = re.compile(rb"mock-64x(\d+)")
_TEXT = "The sea is wide. " * 36


@dataclass
class Stats:
    """What the mock has seen."""

    requests: int = 0
    streams: int = 0
    chunks: int = 0
    aborted: int = 0


def stream_model(gap_ms: int) -> str:
    """The name of the model whose 64 chunks come `gap_ms` apart."""
    return f"mock-64x{gap_ms}"


def _usage(output: int) -> dict[str, int]:
    return {"prompt_tokens": 60, "completion_tokens": output, "total_tokens": 60 + output}


def _event(choices: list[dict[str, Any]], output: int) -> bytes:
    head = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    return b"data: " + json.dumps({**head, "choices": choices, "usage": _usage(output)}).encode() + b"\n\n"


def _delta(content: str, output: int, reason: str | None = None) -> bytes:
    delta = {"content": content} if reason is None else {}
    return _event([{"index": 0, "delta": delta, "finish_reason": reason}], output)


def _framed(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


_END = _delta("", CHUNKS, "stop") + _event([], CHUNKS) + b"data: [DONE]\n\n"
_MOMENT = "@moment@"
_PARTS = [tuple(_delta(_MOMENT, number + 1).split(_MOMENT.encode())) for number in range(CHUNKS)]
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = _framed(_END) + b"0\r\n\r\n"
_SHORT_STREAM = _HEAD + _framed(_delta(_TEXT, CHUNKS)) + _LAST
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
        "usage": _usage(CHUNKS),
    }
).encode()


def _json_answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _refusal(status: bytes) -> bytes:
    body = b'{"error":{"message":"The mock was asked to fail.","type":"server_error","code":null}}'
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_SHORT_WHOLE = _json_answer(_ANSWER)
_CUT = _HEAD + _framed(_delta(_TEXT, CHUNKS))
_FAULTS = {
    "mock-fault-500": _refusal(b"500 Internal Server Error"),
    "mock-fault-503": _refusal(b"503 Service Unavailable"),
    "mock-fault-429": _refusal(b"429 Too Many Requests"),
    "mock-fault-garbage": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{garbage",
    "mock-fault-no-usage": _json_answer(_ANSWER.replace(b'"usage"', b'"unused"')),
    "mock-fault-cut": _CUT,
    "mock-fault-silent": b"",
}
FAULTS = tuple(_FAULTS)
_HANGS_UP = ("mock-fault-cut", "mock-fault-silent")


class Mock(asyncio.Protocol):
    """One connection to the mock."""

    def __init__(self, stats: Stats, loop: asyncio.AbstractEventLoop) -> None:
        self._stats = stats
        self._loop = loop
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection's transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            found = _LENGTH.search(head)
            total = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < total:
                return
            body, self._buffer = self._buffer[end + 4 : total], self._buffer[total:]
            self._answer(head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop a stream that nobody reads."""
        if self._timer is not None:
            self._timer.cancel()
            self._stats.aborted += 1

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self._transport.write(_json_answer(json.dumps(asdict(self._stats)).encode()))
            return
        self._stats.requests += 1
        model = _MODEL.search(body)
        fault = model[1].decode() if model else ""
        if fault in _FAULTS:
            self._fail(fault)
            return
        spaced = _SPACED.fullmatch(model[1]) if model else None
        if spaced is None:
            self._transport.write(_SHORT_STREAM if _STREAM.search(body) else _SHORT_WHOLE)
            return
        self._stats.streams += 1
        gap_s = int(spaced[1]) / 1000
        self._transport.write(_HEAD)
        if gap_s:
            self._write_chunk(0, gap_s, self._loop.time())
        else:
            self._transport.write(b"".join(_framed(_stamped(number)) for number in range(CHUNKS)) + _LAST)
            self._stats.chunks += CHUNKS

    def _fail(self, fault: str) -> None:
        self._transport.write(_FAULTS[fault])
        if fault in _HANGS_UP:
            self._transport.close()

    def _write_chunk(self, number: int, gap_s: float, due_s: float) -> None:
        self._timer = None
        if number == CHUNKS:
            self._transport.write(_LAST)
            return
        self._transport.write(_framed(_stamped(number)))
        self._stats.chunks += 1
        due_s += gap_s
        self._timer = self._loop.call_at(due_s, self._write_chunk, number + 1, gap_s, due_s)


def _stamped(number: int) -> bytes:
    before, after = _PARTS[number]
    return b"%s%.6f %s" % (before, time.monotonic(), after)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    stats = Stats()
    server = await loop.create_server(lambda: Mock(stats, loop), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        uvloop.run(_serve())
    except KeyboardInterrupt:
        sys.exit(0)
