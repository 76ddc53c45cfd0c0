"""Clients that go on whatever dies: what each received of which request, and how its answer ended."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import aiohttp

from tests.system.chaos_engine import MODELS

End = Literal["completed", "error", "cut", "lost", "refused"]
_PAUSE_S = 0.03
_PAUSE_WHEN_LIMITED_S = 0.3


@dataclass
class Received:
    """What a client has of one request: the tokens, by their numbers, and what it was told in the end."""

    request_id: str
    model: str
    asked: int
    streamed: bool
    status: int = 0
    tokens: list[int] = field(default_factory=list)
    end: End = "lost"
    counted: int | None = None
    code: str | None = None


@dataclass
class Load:
    """Some clients for each key; all that they received."""

    address: str
    keys: Sequence[str]
    seed: int
    received: list[Received] = field(default_factory=list)
    unreached: int = 0
    stopping: bool = False

    async def run(self, clients: int) -> None:
        """Ask until `stopping`."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(self.address, connector=connector, timeout=timeout) as http:
            await asyncio.gather(*(self._client(http, number) for number in range(clients)))

    def statuses(self) -> Counter[tuple[int, str | None]]:
        """How often each status and error code came."""
        return Counter((each.status, each.code) for each in self.received)

    async def _client(self, http: aiohttp.ClientSession, number: int) -> None:
        random = Random(f"{self.seed} {number}")
        key = self.keys[number % len(self.keys)]
        while not self.stopping:
            status = await self._ask(http, key, random)
            if status != 200:
                await asyncio.sleep(_PAUSE_WHEN_LIMITED_S if status == 429 else _PAUSE_S)

    async def _ask(self, http: aiohttp.ClientSession, key: str, random: Random) -> int:
        count, gap_ms = random.randint(1, 80), random.choice((0, 4, 10, 25))
        streamed = random.random() < 0.75
        cut_after = random.randint(1, count) if streamed and random.random() < 0.15 else None
        body = {
            "model": random.choice(MODELS),
            "messages": [{"role": "user", "content": f"{count} {gap_ms}"}],
            "max_tokens": count,
            "stream": streamed,
        }
        if streamed:
            body["stream_options"] = {"include_usage": True}
        try:
            async with http.post(
                "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
            ) as response:
                one = Received(response.headers["x-request-id"], str(body["model"]), count, streamed, response.status)
                self.received.append(one)
                await _read(one, response, cut_after)
                return response.status
        except (aiohttp.ClientError, OSError):
            self.unreached += 1
            return 0


async def _read(one: Received, response: aiohttp.ClientResponse, cut_after: int | None) -> None:
    if response.status != 200:
        one.end = "refused"
        one.code = (await response.json())["error"]["code"]
    elif not one.streamed:
        answer = await response.json()
        one.tokens = _numbers(answer["choices"][0]["message"]["content"])
        one.counted = answer["usage"]["completion_tokens"]
        one.end = "completed"
    else:
        async for line in response.content:
            _take_in(one, line)
            if cut_after is not None and len(one.tokens) >= cut_after:
                one.end = "cut"
                response.close()
                return


def _take_in(one: Received, line: bytes) -> None:
    if line == b"data: [DONE]\n":
        if one.end != "error":
            one.end = "completed"
    elif line.startswith(b"data: "):
        event: dict[str, Any] = json.loads(line[6:])
        if "error" in event:
            one.end, one.code = "error", event["error"]["code"]
            return
        for choice in event["choices"]:
            one.tokens += _numbers(choice["delta"].get("content") or "")
        if event.get("usage"):
            one.counted = event["usage"]["completion_tokens"]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]
