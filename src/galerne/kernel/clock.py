"""Time, as something passed in: the real one at the edge, a fixed one in tests."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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


def utc_time(read: datetime | str) -> datetime:
    """A time as a script reads it from a database: PostgreSQL gives an aware one, SQLite the text of one in UTC."""
    return datetime.fromisoformat(read).replace(tzinfo=UTC) if isinstance(read, str) else read.astimezone(UTC)


_NEVER = datetime.max.replace(tzinfo=UTC)
_LAST_SECOND = _NEVER.replace(microsecond=0)
# Begin, end and text of one second, taken and replaced as one: threads ask too, and half of another's would be a lie.
_lately: list[tuple[datetime, datetime, str]] = [(_NEVER, _NEVER, "")]


def utc_text(at: datetime) -> str:
    """`at`, which is aware, in UTC as `2026-11-23 09:30:00.000000`: 26 characters that sort as time goes.

    The text of the last second is kept, for each request writes several times of the same one.
    """
    begin, end, text = _lately[0]
    if not begin <= at < end:
        begin = at.astimezone(UTC).replace(microsecond=0)
        end = begin + timedelta(seconds=1) if begin < _LAST_SECOND else _NEVER
        text = begin.isoformat(" ")[:19]
        _lately[0] = begin, end, text
    return "%s.%06d" % (text, at.microsecond)  # noqa: UP031 - half the cost of an f-string's format
