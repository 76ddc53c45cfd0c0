"""Knows the engine's HTTP surface: routes, errors, and that a caller who hangs up is not worked for any longer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from galerne.engines.failures import EngineFailed
from galerne.engines.llamacpp.chat import prepare_chat, prompt_tokens, stream_chat, tool_schemas, whole_chat
from galerne.engines.llamacpp.completions import prepare_completion, stream_completion, whole_completion
from galerne.engines.llamacpp.embeddings import embed
from galerne.engines.llamacpp.replies import encode, error_body, event
from galerne.engines.llamacpp.requests import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    TokenizeRequest,
    parse,
)
from galerne.engines.llamacpp.runtime import Runtime
from galerne.engines.llamacpp.schema_cost import SchemaBudget
from galerne.kernel.errors import BadRequest, GalerneError, NotFound, TooLarge
from galerne.kernel.logs import get_logger

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LARGEST_BODY = 32 * 1024 * 1024
_log = get_logger("engines")


@dataclass(frozen=True)
class Sent:
    """What to send: a whole body, or pieces of a stream of server-sent events."""

    body: bytes | AsyncIterator[bytes]
    content_type: str = "application/json"
    status: int = 200


class EngineApp:
    """The ASGI application of one engine process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._posts: dict[str, Callable[[bytes], Awaitable[Sent]]] = {"/tokenize": self._tokenize}
        if runtime.model.embeds:
            self._posts["/v1/embeddings"] = self._embeddings
        else:
            self._posts["/v1/chat/completions"] = self._chat
            self._posts["/v1/completions"] = self._completions
        self._gets: dict[str, Callable[[], Awaitable[Sent]]] = {
            "/health": self._health,
            "/metrics": self._metrics,
            "/v1/models": self._models,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; see the ASGI specification, version 3, HTTP connection scope."""
        if scope["type"] != "http":
            return
        body = await _body(receive)
        if body is None:
            await _send_whole(send, _refused(TooLarge(f"the body is larger than {_LARGEST_BODY} bytes")))
            return
        working = asyncio.create_task(self._answer(scope, body, send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self._runtime.measures.ended("cancelled")
        finally:
            leaving.cancel()
            working.cancel()
            await asyncio.wait((working,))

    async def _answer(self, scope: Scope, body: bytes, send: Send) -> None:
        counted = scope["path"].startswith("/v1/") and scope["method"] == "POST"
        try:
            sent = await self._route(scope["method"], scope["path"], body)
            outcome = await _send(send, sent)
        except GalerneError as error:
            outcome = "refused" if error.status < 500 else "failed"
            await _send_whole(send, _refused(error))
        except Exception as error:  # noqa: BLE001 - the edge: whatever went wrong, the caller gets an answer
            outcome = "failed"
            _log.error("request failed", error=type(error).__name__)
            await _send_whole(send, _refused(EngineFailed("the engine failed on this request")))
        if counted:
            self._runtime.measures.ended(outcome)

    async def _route(self, method: str, path: str, body: bytes) -> Sent:
        if method == "POST" and path in self._posts:
            return await self._posts[path](body)
        if method == "GET" and path in self._gets:
            return await self._gets[path]()
        if path in ("/v1/embeddings", "/v1/chat/completions", "/v1/completions"):
            does = "embeds text" if self._runtime.model.embeds else "generates text"
            raise NotFound(f"{path} is not served: this model only {does}")
        raise NotFound(f"{method} {path} does not exist")

    async def _chat(self, body: bytes) -> Sent:
        prepared = await prepare_chat(self._runtime, parse(body, ChatRequest))
        if prepared.request.stream:
            return await _streaming(stream_chat(self._runtime, prepared))
        return Sent(await whole_chat(self._runtime, prepared))

    async def _completions(self, body: bytes) -> Sent:
        prepared = await prepare_completion(self._runtime, parse(body, CompletionRequest))
        if prepared.request.stream:
            return await _streaming(stream_completion(self._runtime, prepared))
        return Sent(await whole_completion(self._runtime, prepared))

    async def _embeddings(self, body: bytes) -> Sent:
        return Sent(await embed(self._runtime, parse(body, EmbeddingRequest)))

    async def _tokenize(self, body: bytes) -> Sent:
        request = parse(body, TokenizeRequest)
        if request.messages is not None:
            await asyncio.to_thread(tool_schemas, request.tools, SchemaBudget())
            tokens = await prompt_tokens(self._runtime, request.messages, request.tools)
        elif request.content is not None:
            tokens = await self._runtime.client.tokenize(
                request.content, control=False, add_special=request.add_special
            )
        else:
            raise BadRequest("give content or messages", param="content")
        return Sent(encode({"tokens": tokens, "count": len(tokens)}))

    async def _health(self) -> Sent:
        healthy = await self._runtime.client.healthy()
        return Sent(encode({"status": "ok" if healthy else "failing"}), status=200 if healthy else 503)

    async def _metrics(self) -> Sent:
        return Sent(self._runtime.measures.text(), "text/plain; version=0.0.4; charset=utf-8")

    async def _models(self) -> Sent:
        runtime = self._runtime
        card = {
            "id": runtime.name,
            "object": "model",
            "created": runtime.created(),
            "owned_by": "galerne",
            "max_context_length": runtime.context,
            "parameters": runtime.model.parameters,
        }
        return Sent(encode({"object": "list", "data": [card]}))


async def _streaming(pieces: AsyncIterator[bytes]) -> Sent:
    # The first piece is awaited here, so that what goes wrong before it is answered with a status.
    first = await anext(pieces)
    return Sent(_resumed(first, pieces), "text/event-stream; charset=utf-8")


async def _resumed(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, sent: Sent) -> str:
    if isinstance(sent.body, bytes):
        await _send_whole(send, sent)
        return "finished"
    await send(_start(sent, []))
    outcome = "finished"
    try:
        async for piece in sent.body:
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    except GalerneError as error:
        outcome = "failed"
        await send({"type": "http.response.body", "body": event(error_body(error)), "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return outcome


async def _send_whole(send: Send, sent: Sent) -> None:
    body = sent.body if isinstance(sent.body, bytes) else b""
    await send(_start(sent, [(b"content-length", str(len(body)).encode())]))
    await send({"type": "http.response.body", "body": body})


def _start(sent: Sent, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": sent.status,
        "headers": [(b"content-type", sent.content_type.encode()), *headers],
    }


def _refused(error: GalerneError) -> Sent:
    return Sent(encode(error_body(error)), status=error.status)
