"""A priority heap from which anything may be taken out, and in which anything may move: what has the least rank first.

Entries that have moved or gone stay in the heap until they surface, or until they are more than half of it; so each
operation costs O(log n) amortised, and the heap is never larger than twice what is ranked and a constant.
"""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

__all__ = ["Ranking"]

K = TypeVar("K", bound=Hashable)
_SLACK = 64


class Ranking(Generic[K]):
    """Keys by rank; among equal ranks, the one that was placed first comes first."""

    def __init__(self) -> None:
        self._entries: dict[K, tuple[float, int, K]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def place(self, key: K, rank: float) -> None:
        """Give `key` this rank, whether it had one or not."""
        self._serial += 1
        entry = self._entries[key] = (rank, self._serial, key)
        heappush(self._heap, entry)
        self._compact()

    def drop(self, key: K) -> None:
        """Take `key` out; nothing happens if it is not here."""
        if self._entries.pop(key, None) is not None:
            self._compact()

    def first(self) -> K | None:
        """The key with the least rank, which stays; None when nothing is ranked."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if self._entries.get(entry[2]) is entry:
                return entry[2]
            heappop(heap)
        return None

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + _SLACK:
            self._heap = list(self._entries.values())
            heapify(self._heap)
