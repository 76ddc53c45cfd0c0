"""Moments as people type them at the command line: a span such as 30d, or an ISO time."""

from datetime import UTC, datetime, timedelta

from galerne.kernel import BadRequest

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def moment(option: str, text: str, now: datetime, *, past: bool) -> datetime:
    """The moment that `text` means, aware: that long before `now` (`past`) or after it, or an ISO time, by default UTC.

    Raises `BadRequest` naming `option`.
    """
    try:
        if text[-1:] in _UNITS and text[:-1].isascii() and text[:-1].isdecimal():
            span = timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
            return now - span if past else now + span
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{option}: '{text}' is neither a span such as 30d nor an ISO time such as 2027-01-31T12:00Z."
        ) from None
