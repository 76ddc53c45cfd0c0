"""Many callers at once, as bare HTTP: streams that are read to their end or cut, and what came back of them."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.serving import Server


@dataclass(frozen=True)
class Received:
    """What a caller has of one request: our id for it, and the chunks with text that arrived."""

    request_id: str
    status: int
    chunks: int


def chat_body(**fields: object) -> dict[str, Any]:
    """A request that writes until its cap."""
    body = {"model": "brise", "messages": [{"role": "user", "content": "Tell me a long story."}]}
    return {**body, "max_tokens": 4, "min_tokens": 4, "temperature": 1, **fields}


@asynccontextmanager
async def session(server: Server, secret: str) -> AsyncGenerator[aiohttp.ClientSession]:
    """As many connections as it takes, with this key."""
    headers = {"authorization": f"Bearer {secret}"}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=150)
    async with aiohttp.ClientSession(server.address, headers=headers, connector=connector, timeout=timeout) as http:
        yield http


async def stream(http: aiohttp.ClientSession, *, cut_after: int | None = None, **fields: object) -> Received:
    """One stream; with `cut_after` the connection is closed as soon as so many chunks with text have come."""
    chunks = 0
    async with http.post("/v1/chat/completions", json=chat_body(stream=True, **fields)) as response:
        async for line in response.content:
            chunks += _has_text(line)
            if cut_after is not None and chunks >= cut_after:
                response.close()
                break
        return Received(response.headers["x-request-id"], response.status, chunks)


async def whole(http: aiohttp.ClientSession, **fields: object) -> Received:
    """One answer that is not streamed."""
    async with http.post("/v1/chat/completions", json=chat_body(**fields)) as response:
        await response.read()
        return Received(response.headers["x-request-id"], response.status, 0)


async def embedding(http: aiohttp.ClientSession) -> Received:
    """One embedding."""
    async with http.post("/v1/embeddings", json={"model": "minilm", "input": "hello"}) as response:
        await response.read()
        return Received(response.headers["x-request-id"], response.status, 0)


async def at_once(*requests: Any) -> Sequence[Received]:
    """All of them, concurrently."""
    return await asyncio.gather(*requests)


def _has_text(line: bytes) -> bool:
    if not line.startswith(b"data: {"):
        return False
    choices = json.loads(line[6:])["choices"]
    return bool(choices and choices[0]["delta"].get("content"))
