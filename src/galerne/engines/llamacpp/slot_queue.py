"""Knows who waits for a slot of the native server: requests get one in the order in which they came."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from galerne.engines.llamacpp.slots import SlotTable


@dataclass(frozen=True)
class Lease:
    """A slot while one request has it; `salt` and `prompt` are the request's."""

    number: int
    salt: str
    prompt: tuple[int, ...]
    _table: SlotTable

    def sent(self) -> dict[str, Any]:
        """The fields that send a request to this slot; what the slot held is not counted upon any more."""
        shares = self._table.may_share(self.number, self.salt)
        self._table.sent(self.number, self.salt)
        return {"id_slot": self.number, "cache_prompt": shares}

    def began(self) -> None:
        """Notes that the native server has begun to answer."""
        self._table.began(self.number, self.salt, self.prompt)


@dataclass(frozen=True, eq=False)
class _Waiting:
    turn: asyncio.Future[Lease]
    salt: str
    prompt: tuple[int, ...]


class SlotQueue:
    """`count` slots; every lease that `take` returns is handed to `give_back` when its request has ended."""

    def __init__(self, count: int) -> None:
        self._table = SlotTable(count)
        self._waiting: deque[_Waiting] = deque()

    async def take(self, salt: str, prompt: tuple[int, ...]) -> Lease:
        """A slot, as soon as all who came before have one."""
        waiting = _Waiting(asyncio.get_running_loop().create_future(), salt, prompt)
        self._waiting.append(waiting)
        self._serve()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if not waiting.turn.cancelled():  # its turn had come when it was given up
                self.give_back(waiting.turn.result())
            raise

    def give_back(self, lease: Lease) -> None:
        """Makes the slot free for whoever waits longest."""
        self._table.give_back(lease.number)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if not first.turn.done():  # done: given up
                number = self._table.take(first.salt, first.prompt)
                if number is None:
                    return
                first.turn.set_result(Lease(number, first.salt, first.prompt, self._table))
            self._waiting.popleft()
