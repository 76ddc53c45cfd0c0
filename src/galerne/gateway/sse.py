"""Splits a byte stream of server-sent events into the data of each event; pure. Source: WHATWG HTML, section 9.2.

Engines write one `data:` line an event, so a line is an event here; comments and other fields are skipped.
"""

from galerne.kernel import UpstreamFailed

__all__ = ["DONE_DATA", "EventSplitter"]

DONE_DATA = b"[DONE]"
_LONGEST_LINE = 16 * 1024 * 1024


class EventSplitter:
    """Feed it what was read, however it was cut; it gives back the data of every event that is complete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, read: bytes) -> list[bytes]:
        """The data of each event that `read` completes; `UpstreamFailed` when a line has no end."""
        lines = (self._rest + read).split(b"\n") if self._rest else read.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST_LINE:
            raise UpstreamFailed("The engine sent a line without end.", code="upstream_garbage")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]

    def end(self) -> list[bytes]:
        """The data of a last event whose line was not ended."""
        return self.feed(b"\n")
