"""A mock engine: a real aiohttp server on loopback whose behaviour is chosen by the model's name; it counts what
happens to it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

WORDS = ("Bonjour", ",", " je", " suis", " le", " vent", ".")


@dataclass
class MockEngine:
    """What the engine has seen, and where it listens."""

    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    cut: int = 0
    begun: int = 0
    sent_chunks: int = 0
    tokens: int = 400


class Stream:
    """Writes one answer's events."""

    def __init__(self, engine: MockEngine, response: web.StreamResponse, body: dict[str, Any], answer_id: str) -> None:
        self.engine, self.response, self.body, self.answer_id = engine, response, body, answer_id
        self.written = 0
        options = body.get("stream_options") or {}
        self.continuous = bool(options.get("continuous_usage_stats"))
        self.chat = "messages" in body

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": 11,
            "completion_tokens": self.written,
            "total_tokens": 11 + self.written,
            "prompt_tokens_details": {"cached_tokens": 4},
        }

    async def event(self, payload: dict[str, Any]) -> None:
        await self.response.write(b"data: " + json.dumps(payload).encode() + b"\n\n")

    async def chunk(self, choices: list[dict[str, Any]], **more: Any) -> None:
        payload: dict[str, Any] = {
            "id": self.answer_id,
            "object": "chat.completion.chunk" if self.chat else "text_completion",
            "created": 1,
            "model": "what-the-replica-calls-it",
            "choices": choices,
            **more,
        }
        if self.continuous and "usage" not in more:
            payload["usage"] = self.usage()
        await self.event(payload)
        self.engine.sent_chunks += 1

    async def word(self, text: str, index: int = 0, **more: Any) -> None:
        self.written += 1
        await self.chunk([{"index": index, **self.part(text), "finish_reason": None, **more}])

    def part(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}} if self.chat else {"text": text}

    async def finish(self, reason: str = "stop", index: int = 0) -> None:
        empty: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        await self.chunk([{"index": index, **empty, "finish_reason": reason}])

    async def end(self) -> None:
        if (self.body.get("stream_options") or {}).get("include_usage"):
            await self.chunk([], usage=self.usage(), timings={"queue_ms": 3.5})
        await self.response.write(b"data: [DONE]\n\n")


async def normal(stream: Stream) -> None:
    if stream.chat:
        await stream.chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    for word in WORDS:
        await stream.word(word)
    await stream.finish()
    await stream.end()


async def slow(stream: Stream) -> None:
    for number in range(stream.engine.tokens):
        await stream.word(f" {number}")
        await asyncio.sleep(0.02)
    await stream.finish()
    await stream.end()


async def floods(stream: Stream) -> None:
    for _ in range(stream.engine.tokens):
        await stream.word("x" * 1_000_000)
    await stream.finish()
    await stream.end()


async def dies(stream: Stream) -> None:
    for word in WORDS[:3]:
        await stream.word(word)
    await asyncio.sleep(0.05)
    assert stream.response._req is not None
    transport = stream.response._req.transport
    assert transport is not None
    transport.abort()


async def reports_error(stream: Stream) -> None:
    for word in WORDS[:3]:
        await stream.word(word)
    await stream.event({"error": {"message": "CUDA out of memory at /opt/engine", "type": "server_error", "code": 500}})


async def error_first(stream: Stream) -> None:
    await stream.event({"error": {"message": "prompt is 9 tokens too long", "code": 400, "param": "messages"}})


async def garbage(stream: Stream) -> None:
    await stream.word(WORDS[0])
    await stream.response.write(b"data: <html>not json</html>\n\n")


async def unfinished(stream: Stream) -> None:
    await stream.word(WORDS[0])
    await stream.response.write(b"data: [DONE]\n\n")


async def no_usage(stream: Stream) -> None:
    stream.continuous = False
    for word in WORDS:
        await stream.word(word)
    await stream.finish()
    await stream.response.write(b"data: [DONE]\n\n")


async def hangs(stream: Stream) -> None:
    await stream.word(WORDS[0])
    await asyncio.sleep(30)


async def tool_calls(stream: Stream) -> None:
    async def delta(delta: dict[str, Any]) -> None:
        stream.written += 1
        await stream.chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    await delta({"role": "assistant", "content": None})
    named = {"index": 0, "id": "chatcmpl-tool-1234567890", "type": "function"}
    await delta({"tool_calls": [{**named, "function": {"name": "weather", "arguments": ""}}]})
    for part in ('{"city"', ': "Brest"', "}"):
        await delta({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
    second = {"index": 1, "id": "abcDEF123", "type": "function"}
    await delta({"tool_calls": [{**second, "function": {"name": "tide", "arguments": "{}"}}]})
    await stream.finish("tool_calls")
    await stream.end()


async def logprobs(stream: Stream) -> None:
    for word in WORDS[:2]:
        one = {"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []}
        found = {"content": [one]} if stream.chat else {"tokens": [word], "token_logprobs": [-0.5]}
        await stream.word(word, logprobs=found)
    await stream.finish()
    await stream.end()


async def several(stream: Stream) -> None:
    for word in WORDS[:3]:
        for index in range(int(stream.body.get("n") or 1)):
            await stream.word(word, index)
    for index in range(int(stream.body.get("n") or 1)):
        await stream.finish("stop", index)
    await stream.end()


async def too_long(stream: Stream) -> None:
    await stream.word(WORDS[0])
    await stream.finish("length")
    await stream.end()


async def thinks(stream: Stream) -> None:
    stream.written += 1
    await stream.chunk(
        [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "Hm."}, "finish_reason": None}]
    )
    await stream.word("Oui")
    await stream.finish()
    await stream.end()


async def absurd(stream: Stream) -> None:
    stream.continuous = False
    for word in WORDS:
        await stream.word(word)
    await stream.finish("st\x00op " + "x" * 100)
    usage = {"prompt_tokens": 2**63, "completion_tokens": 2**62, "prompt_tokens_details": {"cached_tokens": -(10**30)}}
    await stream.chunk([], usage=usage, timings={"queue_ms": 10**400})
    await stream.response.write(b"data: [DONE]\n\n")


async def floods_a_call(stream: Stream) -> None:
    for _ in range(stream.engine.tokens):
        call = {"index": 0, "function": {"name": "f", "arguments": "x" * 100_000}}
        await stream.chunk([{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}])


async def endless_event(stream: Stream) -> None:
    await stream.word(WORDS[0])
    await stream.response.write(b'data: {"choices": "')
    for _ in range(stream.engine.tokens):
        await stream.response.write(b"x" * 100_000)


BEHAVIOURS = {
    "floods-a-call": floods_a_call,
    "endless-event": endless_event,
    "echoes": normal,
    "echoes-and-names-the-field": normal,
    "refuses-options-by-place": normal,
    "absurd": absurd,
    "normal": normal,
    "slow": slow,
    "floods": floods,
    "dies": dies,
    "reports-error": reports_error,
    "error-first": error_first,
    "garbage": garbage,
    "unfinished": unfinished,
    "no-usage": no_usage,
    "hangs": hangs,
    "tool-calls": tool_calls,
    "logprobs": logprobs,
    "several": several,
    "too-long": too_long,
    "thinks": thinks,
    "repeats-ids": normal,
    "refuses-options": normal,
    "refuses-running-usage": normal,
}
REFUSALS = {
    "says-400": (400, {"error": {"message": "logit_bias: unknown token", "param": "logit_bias"}}, {}),
    "says-too-long": (400, {"error": {"message": "9 tokens too many", "code": "context_length_exceeded"}}, {}),
    "says-401": (401, {"error": {"message": "bad key sk-upstream-secret"}}, {}),
    "says-404": (404, {"error": {"message": "no such model"}}, {}),
    "says-429": (429, {"error": {"message": "slow down"}}, {"retry-after": "7"}),
    "says-500": (500, {"error": {"message": "Traceback: prompt was ..."}}, {}),
    "says-503": (503, {"error": {"message": "loading"}}, {"retry-after": "3"}),
}


def _refuses(name: str, body: dict[str, Any]) -> str | dict[str, Any] | None:
    options = body.get("stream_options")
    if name.startswith("echoes") and "reject" in str(body["messages"]):
        echo = f"Cannot render {body['messages']}"
        return {"message": echo, "param": "messages"} if "names" in name else echo
    if name == "refuses-options-by-place" and options is not None:
        return {"message": [{"loc": ["body", "stream_options"], "msg": "Extra inputs", "type": "extra_forbidden"}]}
    if name == "refuses-options" and options is not None:
        return "Extra inputs are not permitted: stream_options"
    if name == "refuses-running-usage" and options and "continuous_usage_stats" in options:
        return "stream_options.continuous_usage_stats: unknown field"
    return None


def _application(engine: MockEngine) -> web.Application:
    async def generate(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        engine.requests.append(body)
        engine.headers.append({name.lower(): value for name, value in request.headers.items()})
        name = str(body["model"])
        if name in REFUSALS:
            status, answer, headers = REFUSALS[name]
            return web.json_response(answer, status=status, headers=headers)
        refused = _refuses(name, body)
        if refused is not None:
            error = {"message": refused} if isinstance(refused, str) else refused
            return web.json_response({"error": error}, status=400)
        if name == "never-answers":
            await asyncio.sleep(30)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        engine.begun += 1
        answer_id = "always-the-same" if name == "repeats-ids" else f"upstream-{engine.begun}"
        try:
            await BEHAVIOURS[name](Stream(engine, response, body, answer_id))
        except (asyncio.CancelledError, ConnectionError):
            engine.cut += 1
            raise
        return response

    async def embed(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        engine.requests.append(body)
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        if inputs and isinstance(inputs[0], int):
            inputs = [inputs]
        rows = [
            {"object": "embedding", "index": index, "embedding": [0.6, -0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]}
            for index, _ in enumerate(inputs)
        ]
        if body["model"] == "short-embedder":
            rows = rows[1:]
        return web.json_response({"data": list(reversed(rows)), "usage": {"prompt_tokens": 5, "total_tokens": 5}})

    app = web.Application(middlewares=[_quiet])
    app.router.add_post("/v1/chat/completions", generate)
    app.router.add_post("/v1/completions", generate)
    app.router.add_post("/v1/embeddings", embed)
    return app


@web.middleware
async def _quiet(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


@asynccontextmanager
async def running_engine(socket: Path | None = None) -> AsyncGenerator[MockEngine]:
    """A running mock engine, on a unix socket if a path is given."""
    engine = MockEngine()
    runner = web.AppRunner(_application(engine), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0) if socket is None else web.UnixSite(runner, str(socket))
    await site.start()
    port = runner.addresses[0][1] if socket is None else 0
    engine.base_url = "http://engine/v1" if socket is not None else f"http://127.0.0.1:{port}/v1"
    try:
        yield engine
    finally:
        await runner.cleanup()
