"""When a limit's window begins and ends: pure arithmetic on epoch milliseconds, by UTC's calendar, which has no DST."""

from datetime import UTC, datetime, timedelta
from typing import Literal

Window = Literal["minute", "5h", "day", "week", "month", "none"]

_DAY_MS = 86_400_000
_WEEK_MS = 7 * _DAY_MS
_FIVE_HOURS_MS = 5 * 3_600_000
_MONDAY_MS = 4 * _DAY_MS  # 1970-01-05, the first Monday of the epoch
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def window_start_ms(window: Window, now_ms: int, since_ms: int = 0) -> int:
    """Where the window that `now_ms` lies in begins; `since_ms` is where the one that was last used began.

    Five hours begin with the first use after the last ones ended; a day, an ISO week and a month by UTC's calendar. A
    window never moves back: of two clocks that differ, the one that is ahead decides.
    """
    if window == "5h":
        return since_ms if now_ms < since_ms + _FIVE_HOURS_MS else now_ms
    if window == "day":
        start_ms = now_ms - now_ms % _DAY_MS
    elif window == "week":
        start_ms = now_ms - (now_ms - _MONDAY_MS) % _WEEK_MS
    else:
        start_ms = _epoch_ms(_moment(now_ms).replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    return max(start_ms, since_ms)


def window_end_ms(window: Window, start_ms: int) -> int:
    """The first millisecond after the window that begins at `start_ms`."""
    if window == "5h":
        return start_ms + _FIVE_HOURS_MS
    if window == "day":
        return start_ms + _DAY_MS
    if window == "week":
        return start_ms + _WEEK_MS
    return _epoch_ms((_moment(start_ms) + timedelta(days=31)).replace(day=1))


def _moment(at_ms: int) -> datetime:
    return _EPOCH + at_ms * _MILLISECOND


def _epoch_ms(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
