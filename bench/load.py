"""Callers of a server: closed loop, open loop, many streams; over raw connections, so that little time is theirs."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_MOMENT = re.compile(rb'"content":\s?"(\d+\.\d+) ')
_END = b"0\r\n\r\n"
_TEXT = "Tell me what the sea is like in winter, and why the wind turns. " * 5


@dataclass(frozen=True)
class Target:
    """Where to send requests, and with which key; `key` None sends none. `headers` are sent besides."""

    host: str
    port: int
    key: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, model: str, *, stream: bool) -> bytes:
        """A chat request of about half a kilobyte, ready to be written."""
        messages = [{"role": "user", "content": _TEXT}]
        body = json.dumps({"model": model, "stream": stream, "max_tokens": 64, "messages": messages}).encode()
        key = f"authorization: Bearer {self.key}\r\n" if self.key else ""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
            f"{key}{more}content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass
class Answer:
    """What came back: the status, when it was sent, when first and last bytes came, and each chunk's travel time.

    `is_whole` says whether it came to its end; the status is 0 if it never began.
    """

    sent_s: float
    status: int = 0
    is_whole: bool = False
    first_s: float = 0.0
    last_s: float = 0.0
    delays_s: list[float] = field(default_factory=list[float])

    @property
    def total_s(self) -> float:
        """From sending to the last byte."""
        return self.last_s - self.sent_s


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._left = -1
        self._done: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection's transport."""
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue] - TCP gives a Transport

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future is done with the last byte of its answer."""
        assert self._transport is not None
        self._done = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._answer = Answer(time.monotonic())
        self._left = -1
        self._transport.write(request)
        return self._done

    @property
    def is_open(self) -> bool:
        """Whether the server still keeps it; it may close one that was idle."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take in a part of the answer."""
        answer, now_s = self._answer, time.monotonic()
        if answer is None:
            return
        if not answer.status:
            self._buffer += data
            data = self._head(answer, now_s)
        if answer.status:
            self._body(answer, data, now_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that is not complete will not be."""
        self._transport = None
        if self._answer is not None:
            self._finish(self._answer, time.monotonic(), is_whole=False)

    def _head(self, answer: Answer, now_s: float) -> bytes:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return b""
        head, rest = self._buffer[:end], self._buffer[end + 4 :]
        answer.status, answer.first_s = int(head[9:12]), now_s
        found = _LENGTH.search(head)
        self._left = int(found[1]) if found else -1
        self._buffer = b""
        return rest

    def _body(self, answer: Answer, data: bytes, now_s: float) -> None:
        if self._left >= 0:
            self._left -= len(data)
            if self._left == 0:
                self._finish(answer, now_s)
            return
        self._buffer += data
        end = self._buffer.rfind(b"\n\n")
        if end >= 0:
            answer.delays_s += [now_s - float(moment) for moment in _MOMENT.findall(self._buffer[:end])]
            self._buffer = self._buffer[end:]
        if self._buffer.endswith(_END):
            self._finish(answer, now_s)

    def _finish(self, answer: Answer, now_s: float, *, is_whole: bool = True) -> None:
        answer.last_s, answer.is_whole = now_s, is_whole
        self._answer = None
        if self._done is not None and not self._done.done():
            self._done.set_result(answer)


async def connect(target: Target, count: int) -> list[Connection]:
    """So many open connections."""
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(Connection, target.host, target.port) for _ in range(count)]
    return [connection for _, connection in opened]


async def closed_loop(
    target: Target, model: str, connections: int, seconds: float, *, stream: bool = False
) -> list[Answer]:
    """What `connections` callers get who ask again as soon as they are answered."""
    request = target.request(model, stream=stream)
    answers: list[Answer] = []
    end_s = time.monotonic() + seconds

    async def caller(connection: Connection) -> None:
        while time.monotonic() < end_s:
            answers.append(await connection.ask(request))
            if not connection.is_open:
                (connection,) = await connect(target, 1)
        connection.close()

    await asyncio.gather(*map(caller, await connect(target, connections)))
    return answers


async def open_loop(
    targets: Sequence[Target], models: Sequence[str], per_second: float, seconds: float
) -> list[list[Answer]]:
    """What callers get who come at a fixed rate, to each target in turn, whether or not the last one was answered."""
    answers: list[list[Answer]] = [[] for _ in targets]
    free: list[list[Connection]] = [await connect(target, 4) for target in targets]
    requests = [target.request(model, stream=False) for target, model in zip(targets, models, strict=True)]

    async def caller(which: int) -> None:
        free[which] = [each for each in free[which] if each.is_open]
        connection = free[which].pop() if free[which] else (await connect(targets[which], 1))[0]
        answers[which].append(await connection.ask(requests[which]))
        free[which].append(connection)

    began_s, gap_s = time.monotonic(), 1 / (per_second * len(targets))
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds) * len(targets)):
            await asyncio.sleep(max(0.0, began_s + number * gap_s - time.monotonic()))
            group.create_task(caller(number % len(targets)))
    for connection in (connection for each in free for connection in each):
        connection.close()
    return answers


async def streams(target: Target, model: str, count: int, rounds: int, spread_s: float) -> list[Answer]:
    """What `count` concurrent readers of streams get, each `rounds` times; they begin spread over `spread_s`."""
    request = target.request(model, stream=True)
    answers: list[Answer] = []

    async def reader(number: int, connection: Connection) -> None:
        await asyncio.sleep(spread_s * number / count)
        for _ in range(rounds):
            if not connection.is_open:
                (connection,) = await connect(target, 1)
            answers.append(await connection.ask(request))
        connection.close()

    await asyncio.gather(*(reader(number, each) for number, each in enumerate(await connect(target, count))))
    return answers


async def abandon(target: Target, model: str, count: int, after_s: float) -> None:
    """Begin `count` streams and hang up on all of them."""
    request = target.request(model, stream=True)
    opened = await connect(target, count)
    waiting = [connection.ask(request) for connection in opened]
    await asyncio.sleep(after_s)
    for connection in opened:
        connection.close()
    await asyncio.gather(*waiting, return_exceptions=True)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie; linear between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
