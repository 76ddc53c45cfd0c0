"""Timers for what hardly ever happens: setting one and taking it back costs a tenth of an event loop's own.

Each request sets half a dozen limits on its patience and meets none of them. A limit here is late by up to a twentieth
of a second, never early.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from msgspec import Struct

__all__ = ["Deadline", "later"]

_TICK_S = 0.05


class Deadline(Struct, eq=False):
    """One timer; cancelling it twice, or after it went off, changes nothing."""

    _slot: "set[Deadline]"
    _callback: Callable[..., object]
    _arguments: tuple[Any, ...]

    def cancel(self) -> None:
        """Have nothing happen, and hold nothing any more: whoever sets a timer on itself keeps the timer too."""
        self._slot.discard(self)
        self._callback, self._arguments = _nothing, ()

    def go_off(self) -> None:
        """The time has come."""
        callback, arguments = self._callback, self._arguments
        self._callback, self._arguments = _nothing, ()
        callback(*arguments)


def _nothing() -> None:
    pass


class _Wheel:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._slots: dict[int, set[Deadline]] = {}
        self._turned = 0
        self._ticking: asyncio.TimerHandle | None = None

    def later(self, seconds: float, callback: Callable[..., object], arguments: tuple[Any, ...]) -> Deadline:
        number = int((monotonic() + seconds) / _TICK_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            if self._ticking is None:
                self._turned = int(monotonic() / _TICK_S)
                self._ticking = self.loop.call_later(_TICK_S, self._tick)
        deadline = Deadline(slot, callback, arguments)
        slot.add(deadline)
        return deadline

    def _tick(self) -> None:
        now = int(monotonic() / _TICK_S)
        due = [self._slots.pop(number) for number in range(self._turned + 1, now + 1) if number in self._slots]
        self._turned = now
        self._ticking = self.loop.call_later(_TICK_S, self._tick) if self._slots else None
        for slot in due:
            while slot:
                slot.pop().go_off()


_wheels: list[_Wheel] = []


def later(seconds: float, callback: Callable[..., object], *arguments: Any) -> Deadline:
    """Call `callback` in the running event loop after `seconds`, unless the deadline is cancelled before."""
    loop = asyncio.get_running_loop()
    if not _wheels or _wheels[0].loop is not loop:
        _wheels[:] = [_Wheel(loop)]  # a process has one loop; tests have one after the other
    return _wheels[0].later(seconds, callback, arguments)
