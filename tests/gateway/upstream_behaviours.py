"""What engines do to a gateway, as raw bytes on a socket, and what must come of each: what a client sees and pays.

`python -m tests.gateway.upstream_behaviours` writes the same table into docs/guides/upstream-failures.md.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "upstream-failures.md"
BEGIN, END = "<!-- table: tests/gateway/upstream_behaviours.py -->", "<!-- end of table -->"
WORDS = ("Bonjour", ",", " le", " vent", ".")
PROMPT, CACHED = 11, 4
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_DONE = b"data: [DONE]\n\n"


class Wire:
    """One connection, on which a behaviour writes what it likes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def raw(self, content: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(content)
        await self._writer.drain()

    async def part(self, content: bytes) -> None:
        """One chunk of a chunked body."""
        await self.raw(b"%x\r\n%s\r\n" % (len(content), content))

    async def words(self, words: Sequence[str], *, running: bool = True) -> None:
        """The head and some tokens, each with its usage when `running`."""
        await self.raw(_HEAD)
        for number, word in enumerate(words, 1):
            usage = {"usage": usage_of(number)} if running else {}
            await self.part(event([{"index": 0, "delta": {"content": word}, "finish_reason": None}], **usage))

    async def finish(self) -> None:
        """The finish reason."""
        await self.part(event([{"index": 0, "delta": {}, "finish_reason": "stop"}]))

    async def end(self) -> None:
        """What says that the answer is over, and the end of the body."""
        await self.part(_DONE)
        await self.raw(b"0\r\n\r\n")

    async def answer(self, status: str, body: bytes, headers: str = "") -> None:
        """A whole answer of any status."""
        await self.raw(f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def stall(self) -> None:
        """Nothing more, for longer than anybody waits."""
        await asyncio.sleep(30)

    def hang_up(self) -> None:
        """The connection is gone."""
        self._writer.transport.abort()


Behaviour = Callable[[Wire], Awaitable[None]]


def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    """One chunk's event; its id is the same in every answer."""
    head = {"id": "always-the-same", "object": "chat.completion.chunk", "created": 1, "model": "its-own-name"}
    return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"


def usage_of(output: int) -> dict[str, Any]:
    """What an engine that counts says."""
    details = {"cached_tokens": CACHED}
    return {"prompt_tokens": PROMPT, "completion_tokens": output, "prompt_tokens_details": details}


def error_body(message: str) -> bytes:
    """An engine's error."""
    return json.dumps({"error": {"message": message, "type": "server_error"}}).encode()


async def well(wire: Wire) -> None:
    """An answer as it should be, with ids that repeat."""
    await wire.words(WORDS)
    await wire.finish()
    await wire.part(event([], usage=usage_of(len(WORDS))))
    await wire.end()


async def counts_at_the_end(wire: Wire) -> None:
    await wire.words(WORDS, running=False)
    await wire.finish()
    await wire.part(event([], usage=usage_of(len(WORDS))))
    await wire.end()


async def never_counts(wire: Wire) -> None:
    await wire.words(WORDS, running=False)
    await wire.finish()
    await wire.end()


async def counts_absurdly(wire: Wire) -> None:
    await wire.words(WORDS, running=False)
    await wire.finish()
    await wire.part(event([], usage={"prompt_tokens": -(2**70), "completion_tokens": 2**62}))
    await wire.end()


async def more_cached_than_read(wire: Wire) -> None:
    await wire.words(WORDS, running=False)
    await wire.finish()
    details = {"cached_tokens": 1000}
    usage = {"prompt_tokens": PROMPT, "completion_tokens": len(WORDS), "prompt_tokens_details": details}
    await wire.part(event([], usage=usage))
    await wire.end()


async def no_http(wire: Wire) -> None:
    await wire.raw(b"220 mail.example ESMTP\r\n\r\n")


async def garbage_first(wire: Wire) -> None:
    await wire.raw(_HEAD)
    await wire.part(b"data: <html>502 from some proxy</html>\n\n")


async def garbage_later(wire: Wire) -> None:
    await wire.words(WORDS[:2])
    await wire.part(b"data: {{\n\n")


async def error_first(wire: Wire) -> None:
    await wire.raw(_HEAD)
    await wire.part(b"data: " + error_body("CUDA out of memory") + b"\n\n")


async def error_later(wire: Wire) -> None:
    await wire.words(WORDS[:2])
    await wire.part(b"data: " + error_body("CUDA out of memory") + b"\n\n")


async def stalls_before_the_head(wire: Wire) -> None:
    await wire.stall()


async def stalls_after_the_head(wire: Wire) -> None:
    await wire.raw(_HEAD)
    await wire.stall()


async def stalls_in_mid_stream(wire: Wire) -> None:
    await wire.words(WORDS[:2])
    await wire.stall()


async def stalls_after_the_last_token(wire: Wire) -> None:
    await wire.words(WORDS)
    await wire.finish()
    await wire.stall()


async def closes_before_the_head(wire: Wire) -> None:
    wire.hang_up()


async def closes_after_the_head(wire: Wire) -> None:
    await wire.raw(_HEAD)
    await asyncio.sleep(0.02)
    wire.hang_up()


async def closes_after_the_role(wire: Wire) -> None:
    await wire.raw(_HEAD)
    role = {"role": "assistant", "content": ""}
    await wire.part(event([{"index": 0, "delta": role, "finish_reason": None}], usage=usage_of(0)))
    await asyncio.sleep(0.02)
    wire.hang_up()


async def closes_in_mid_stream(wire: Wire) -> None:
    await wire.words(WORDS[:2])
    await asyncio.sleep(0.02)
    wire.hang_up()


async def ends_in_mid_stream(wire: Wire) -> None:
    await wire.words(WORDS[:2])
    await wire.end()


async def closes_without_done(wire: Wire) -> None:
    await wire.words(WORDS)
    await wire.finish()
    await asyncio.sleep(0.02)
    wire.hang_up()


async def ends_without_done(wire: Wire) -> None:
    await wire.words(WORDS)
    await wire.finish()
    await wire.raw(b"0\r\n\r\n")


async def never_ends_its_body(wire: Wire) -> None:
    await wire.words(WORDS)
    await wire.finish()
    await wire.part(_DONE)
    await wire.stall()


def says(status: str, headers: str = "", body: bytes | None = None) -> Behaviour:
    """An answer of this status with an error in it, or with `body`."""

    async def behave(wire: Wire) -> None:
        await wire.answer(status, error_body("not now") if body is None else body, headers)

    return behave


@dataclass(frozen=True)
class Seen:
    """What a client sees: a status, an error's code, when to try again, and how many tokens came before it."""

    status: int = 200
    code: str | None = None
    retry_after: str | None = None
    tokens: int = 0

    def words(self) -> str:
        """In words, for people."""
        if self.code is None:
            return "the answer"
        error = f"`{self.code}`" + (f", `retry-after: {self.retry_after}`" if self.retry_after else "")
        return f"{self.tokens} tokens, then an error event {error}" if self.status == 200 else f"{self.status} {error}"


@dataclass(frozen=True)
class Billed:
    """What the usage event says: outcome, tokens computed, found in the cache and written; whether it was estimated."""

    outcome: str
    input: int = 0
    cached: int = 0
    output: int = 0
    estimated: bool = False

    def words(self) -> str:
        """In words, for people."""
        if not (self.input or self.cached or self.output):
            return "nothing"
        counted = "prompt by its bytes" if self.estimated else "prompt"
        return f"{counted} + {self.output}"


ANSWER, WHOLE = Seen(tokens=len(WORDS)), Billed("completed", PROMPT - CACHED, CACHED, len(WORDS))
NOTHING = Billed("failed")
ESTIMATED_INPUT = -1
"""Stands for the prompt's bytes divided by four, which the test knows."""


def first(output: int) -> Billed:
    """The prompt and so many tokens of an answer that broke."""
    return Billed("failed", PROMPT - CACHED, CACHED, output)


@dataclass(frozen=True)
class Case:
    """One behaviour, what comes of it with one replica, and whether another replica is asked instead.

    `billed_whole` is for an answer that is not streamed; None means the same as for a stream. `billed` None: no usage
    event at all. `asked` is how often the one replica is asked.
    """

    says: str
    behaviour: Behaviour | None
    stream: Seen = ANSWER
    whole: Seen = ANSWER
    billed: Billed | None = WHOLE
    billed_whole: Billed | None = None
    retried: bool = False
    asked: int = 1

    def of_whole(self) -> Billed | None:
        """What an answer that is not streamed is billed."""
        return self.billed if self.billed_whole is None else self.billed_whole


def refused(says_: str, behaviour: Behaviour, seen: Seen, *, retried: bool = True, asked: int = 1) -> Case:
    """A case in which nothing is sent before the error: stream or not, the client sees the same and pays nothing."""
    return Case(says_, behaviour, seen, seen, NOTHING, retried=retried, asked=asked)


def broken(says_: str, behaviour: Behaviour, seen: Seen, billed: Billed) -> Case:
    """A case in which an answer breaks: a stream after some tokens, which are paid; otherwise with a status, unpaid."""
    return Case(says_, behaviour, replace(seen, status=200, tokens=billed.output), seen, billed, NOTHING)


_ESTIMATED = Billed("completed", ESTIMATED_INPUT, 0, len(WORDS), estimated=True)
LOST = Seen(502, "upstream_lost")
LATE = Seen(504, "upstream_timeout")
GARBAGE = Seen(502, "upstream_garbage")
FAILED = Seen(502, "upstream_failed")
NO_WAY = Seen(503, "upstream_unreachable", "1")

CASES = (
    Case("repeats the same id in every answer, counts with every chunk", well),
    Case("counts only at the end", counts_at_the_end),
    Case("never counts", never_counts, billed=_ESTIMATED),
    Case("reports counts that cannot be (negative, above 2^40)", counts_absurdly, billed=_ESTIMATED),
    Case(
        "says that more was cached than read",
        more_cached_than_read,
        billed=Billed("completed", 0, PROMPT, len(WORDS)),
    ),
    refused("speaks something that is not HTTP", no_http, LOST, asked=2),
    refused("sends something that is no chunk first", garbage_first, GARBAGE),
    broken("sends something that is no chunk in mid-stream", garbage_later, GARBAGE, first(2)),
    refused("reports an error as its first event", error_first, FAILED),
    broken("reports an error in mid-stream", error_later, FAILED, first(2)),
    refused("stalls before the head", stalls_before_the_head, LATE),
    refused("stalls between the head and the first chunk", stalls_after_the_head, LATE),
    broken("stalls in mid-stream", stalls_in_mid_stream, LATE, first(2)),
    Case("stalls after the finish reason", stalls_after_the_last_token),
    Case("takes no connections", closes_before_the_head, NO_WAY, NO_WAY, None, retried=True, asked=0),
    refused("closes before the head", closes_before_the_head, LOST, asked=2),
    refused("closes after the head", closes_after_the_head, LOST, asked=2),
    broken("closes after a first chunk without text", closes_after_the_role, LOST, NOTHING),
    broken("closes in mid-stream", closes_in_mid_stream, LOST, first(2)),
    broken("says `[DONE]` without a finish reason", ends_in_mid_stream, LOST, first(2)),
    Case("closes after the finish reason, without `[DONE]`", closes_without_done),
    Case("ends in good order after the finish reason, without `[DONE]`", ends_without_done),
    Case("says `[DONE]` and never ends the body", never_ends_its_body),
    refused("answers 429 with `retry-after: 7`", says("429 Too Many Requests", "retry-after: 7\r\n"),
            Seen(429, "rate_limit_exceeded", "7")),
    refused("answers 500", says("500 Internal Server Error"), FAILED),
    refused("answers 502 with a proxy's page", says("502 Bad Gateway", body=b"<html>nginx</html>"), FAILED),
    refused("answers 503 with `retry-after: 3`", says("503 Service Unavailable", "retry-after: 3\r\n"),
            Seen(503, "unavailable", "3")),
    refused("answers 401 or 403", says("401 Unauthorized"), Seen(502, "upstream_credentials")),
    refused("answers 404", says("404 Not Found"), Seen(502, "upstream_lacks_model")),
    refused("answers 400, 413 or 422", says("400 Bad Request"), Seen(400, "invalid_request"), retried=False),
)  # fmt: skip


@dataclass
class Upstream:
    """A server that behaves well after so many requests at which it does not."""

    behaviour: Behaviour
    bad: int
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """Where a replica is said to be."""
        return f"http://127.0.0.1:{self.port}/v1"


@asynccontextmanager
async def upstream(behaviour: Behaviour, bad: int) -> AsyncGenerator[Upstream]:
    """A running one; its connections end with it."""
    up = Upstream(behaviour, bad)
    busy: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        try:
            while True:
                await _serve(up, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            busy.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    up.port = server.sockets[0].getsockname()[1]
    try:
        yield up
    finally:
        server.close()
        for task in tuple(busy):
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def _serve(up: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    await reader.readexactly(int(fields["content-length"]))
    up.asked.append(fields["x-request-id"])
    await (up.behaviour if len(up.asked) <= up.bad else well)(Wire(writer))


def table() -> str:
    """The cases as Markdown."""
    columns = (
        "the engine …",
        "client of a stream",
        "pays for",
        "client of a whole answer",
        "pays for",
        "second replica",
    )
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for case in CASES:
        billed, whole = case.billed, case.of_whole()
        cells = (
            case.says,
            case.stream.words(),
            "nothing" if billed is None else billed.words(),
            case.whole.words(),
            "nothing" if whole is None else whole.words(),
            "answers instead; only that is paid" if case.retried else "is not asked",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the table into its page."""
    before, _, rest = GUIDE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    GUIDE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
