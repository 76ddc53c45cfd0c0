"""A mixed load at a fixed rate: what callers do well, what they do badly, and upstreams that fail, by a seeded dice."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from bench.load import Answer, Connection, Target, connect
from bench.upstream import FAULTS, SHORT, stream_model

_PATIENCE_S = 30
_MOST_AT_ONCE = 1000
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

HUNG = "hung"
LEFT = "left"
CUT = "cut"


@dataclass
class Mixture:
    """A load on one server: callers choose among `keys`, which change meanwhile, and `limited_keys` are always used up.

    `outcomes` counts, by kind of request, the status or what else became of it; who reads `most_at_once` sets it back.
    """

    server: Target
    keys: list[str]
    limited_keys: Sequence[str]
    dice: random.Random
    outcomes: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    at_once: int = 0
    most_at_once: int = 0
    _free: list[Connection] = field(default_factory=list[Connection])

    async def run(self, per_second: float, seconds: float) -> None:
        """Ask so often for so long; a request that comes while too many are waiting is counted as hung."""
        kinds = self._kinds()
        names, weights = list(kinds), [weight for weight, _ in kinds.values()]
        began_s, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (due_s := number / per_second) < seconds:
                await asyncio.sleep(max(0.0, began_s + due_s - time.monotonic()))
                (name,) = self.dice.choices(names, weights)
                group.create_task(self._counted(name, kinds[name][1]))
                number += 1
        for connection in self._free:
            connection.close()

    async def all_at_once(self, count: int) -> None:
        """So many requests together, of every kind, drawn like the others; returns when all are answered."""
        kinds = self._kinds()
        names = self.dice.choices(list(kinds), [weight for weight, _ in kinds.values()], k=count)
        await asyncio.gather(*(self._counted(name, kinds[name][1]) for name in names))

    def count(self, kind: str, outcome: str) -> None:
        """Note what became of one request."""
        self.outcomes.setdefault(kind, Counter())[outcome] += 1

    def _kinds(self) -> dict[str, tuple[int, Callable[[], Awaitable[str]]]]:
        return {
            "short answer": (45, self._short),
            "stream of 64 chunks, 5 ms apart": (20, self._stream),
            "stream left by its reader": (8, self._abandoned),
            "wrong key, each another": (8, self._wrong_key),
            "unknown model, each another": (5, self._unknown_model),
            "key over its limit": (5, self._over_the_limit),
            "upstream that fails": (7, self._upstream_fails),
            "body that is not valid": (2, self._nonsense),
        }

    async def _counted(self, kind: str, act: Callable[[], Awaitable[str]]) -> None:
        outcome = HUNG
        if self.at_once < _MOST_AT_ONCE:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    outcome = await act()
            except TimeoutError:
                pass
            finally:
                self.at_once -= 1
        self.count(kind, outcome)

    async def _short(self) -> str:
        return await self._ask(self._caller().request(SHORT, stream=False))

    async def _stream(self) -> str:
        return await self._ask(self._caller().request(stream_model(5), stream=True))

    async def _abandoned(self) -> str:
        (connection,) = await connect(self.server, 1)
        answered = connection.ask(self._caller().request(stream_model(20), stream=True))
        await asyncio.sleep(self.dice.uniform(0.02, 1.0))
        connection.close()
        await answered
        return LEFT

    async def _wrong_key(self) -> str:
        stranger = "gal_" + "".join(self.dice.choices(_ALPHABET, k=40))
        return await self._ask(replace(self.server, key=stranger).request(SHORT, stream=False))

    async def _unknown_model(self) -> str:
        return await self._ask(self._caller().request(f"model-{self.dice.getrandbits(64):x}", stream=False))

    async def _over_the_limit(self) -> str:
        poor = replace(self.server, key=self.dice.choice(self.limited_keys))
        return await self._ask(poor.request(SHORT, stream=False))

    async def _upstream_fails(self) -> str:
        return await self._ask(self._caller().request(self.dice.choice(FAULTS), stream=self.dice.random() < 0.5))

    async def _nonsense(self) -> str:
        return await self._ask(self._caller().request(SHORT, stream=False).replace(b'{"model"', b'["model"', 1))

    def _caller(self) -> Target:
        return replace(self.server, key=self.dice.choice(self.keys))

    async def _ask(self, request: bytes) -> str:
        self._free = [each for each in self._free if each.is_open]
        if self._free:
            answer = await self._ask_on(self._free.pop(), request)
            if answer.status:
                return _outcome(answer)
        # A connection that was kept may be closed by the server just as it is used again; a new one may not.
        (fresh,) = await connect(self.server, 1)
        return _outcome(await self._ask_on(fresh, request))

    async def _ask_on(self, connection: Connection, request: bytes) -> Answer:
        try:
            answer = await connection.ask(request)
        except asyncio.CancelledError:
            connection.close()
            raise
        if connection.is_open:
            self._free.append(connection)
        return answer


def _outcome(answer: Answer) -> str:
    status = str(answer.status) if answer.status else "no answer"
    return status if answer.is_whole else f"{status}, {CUT}"
