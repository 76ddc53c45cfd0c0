"""Knows which of the native server's slots a request takes, and whether it may build upon what that slot holds.

A slot keeps the keys and values of the tokens that it last read. Who is told how many of his tokens were found there
learns what another caller has asked, so a request builds only upon what was read under its own salt (the `cache_salt`
of vLLM). What a slot holds is taken as known only once the native server has begun to answer: a request that was given
up before may or may not have replaced it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from galerne.kernel import invariant

_WORTH_A_SLOT = 10  # a prefix counts from one tenth of the prompt on, as in llama.cpp's own choice


@dataclass
class _Slot:
    number: int
    salt: str | None = None  # None: nothing that anyone may build upon
    tokens: tuple[int, ...] = ()
    busy: bool = False
    last_use: int = 0


class SlotTable:
    """What each of `count` slots holds and whether it is busy; no I/O, no waiting."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._uses = 0

    def take(self, salt: str, prompt: tuple[int, ...]) -> int | None:
        """The number of a free slot, now busy, or None when there is none.

        It is the one that holds the longest part of `prompt` under `salt`, or else the one unused for longest.
        """
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            return None
        shared = {slot.number: common_prefix(slot.tokens, prompt) for slot in free if slot.salt == salt}
        longest = max(shared.values(), default=0)
        if longest * _WORTH_A_SLOT < len(prompt) or longest == 0:
            chosen = min(free, key=_by_use)
        else:
            chosen = min((slot for slot in free if shared.get(slot.number) == longest), key=_by_use)
        chosen.busy = True
        return chosen.number

    def may_share(self, number: int, salt: str) -> bool:
        """Whether a request of `salt` may build upon what the slot holds."""
        return self._slots[number].salt == salt

    def sent(self, number: int, salt: str) -> None:
        """Notes that a request of `salt` was sent to the slot: until it begins, what the slot holds is not known."""
        slot = self._slots[number]
        slot.salt = slot.salt if slot.salt == salt else None
        slot.tokens = ()

    def began(self, number: int, salt: str, prompt: tuple[int, ...]) -> None:
        """Notes that the native server answers for `prompt`: the slot now holds it, read under `salt`."""
        slot = self._slots[number]
        slot.salt, slot.tokens = salt, prompt

    def give_back(self, number: int) -> None:
        """Makes the slot free."""
        slot = self._slots[number]
        invariant(slot.busy, "only a slot that was taken can be given back")
        self._uses += 1
        slot.busy, slot.last_use = False, self._uses


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two lists begin with in common; halves its way there, so that the comparing is done in C."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _by_use(slot: _Slot) -> int:
    return slot.last_use
