"""How fast a queue drains, measured while somebody waits."""

from collections import deque

__all__ = ["Drain"]

_WINDOW = 64
_ENOUGH = 8


class Drain:
    """Dispatches per second over the last 64 since the queue was last empty.

    What an earlier rush showed counts as eight dispatches more, so that the first moments of the next one have a
    figure, and a stall still shows.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_WINDOW + 1)
        self._earlier_s: float | None = None

    def begin(self, now_s: float) -> None:
        """Somebody waits, and nobody did before."""
        if len(self._times) > _ENOUGH:
            self._earlier_s = (self._times[-1] - self._times[0]) * _ENOUGH / (len(self._times) - 1)
        self._times.clear()
        self._times.append(now_s)

    def dispatched(self, now_s: float) -> None:
        """One of those who waited has gone to a replica."""
        self._times.append(now_s)

    def seconds_for(self, waiting: int, now_s: float) -> float | None:
        """How long `waiting` dispatches take at this rate, or None when nothing was measured yet."""
        count = len(self._times) - 1
        if count < 1 and self._earlier_s is None:
            return None
        elapsed_s = max(0.0, now_s - self._times[0]) if self._times else 0.0
        if self._earlier_s is not None:
            count, elapsed_s = count + _ENOUGH, elapsed_s + self._earlier_s
        return waiting * elapsed_s / count
