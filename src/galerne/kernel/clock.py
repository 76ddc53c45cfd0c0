"""Time, as something passed in: the real one at the edge, a fixed one in tests."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where code gets its time from."""

    def now(self) -> datetime:
        """The time of day, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back; for durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time of day, aware, UTC."""
        return datetime.now(UTC)

    # Not a method of Python: it is asked a dozen times in each request.
    monotonic = staticmethod(time.monotonic)


@dataclass
class ManualClock:
    """A clock that moves only when told, for tests and simulation."""

    current: datetime
    elapsed_s: float = 0.0

    def now(self) -> datetime:
        """The time that was set."""
        return self.current

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self.elapsed_s
