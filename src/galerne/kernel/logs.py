"""Logs: one JSON object a line on standard error, carrying the request id, never a prompt or a key."""

import logging
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from galerne.kernel.clock import utc_text

_MOST_FRAMES = 50
_bound: ContextVar[Mapping[str, Any]] = ContextVar("log_context")


def _write(line: Mapping[str, Any]) -> None:
    sys.stderr.buffer.write(msgspec.json.encode(line, enc_hook=repr) + b"\n")
    sys.stderr.buffer.flush()


@dataclass
class _State:
    least: int = logging.WARNING  # until logs are configured
    write: Callable[[Mapping[str, Any]], None] = _write


_state = _State()


def configure_logs(level: str) -> None:
    """Send this process's logs, those of libraries included, to standard error as JSON lines from `level` upwards."""
    _state.least = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [_LibraryLines()]
    # Libraries speak up only when something is wrong: their chatter may quote what users wrote.
    root.setLevel(max(logging.WARNING, _state.least))


class _LibraryLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = {**_head(record.levelname.lower(), record.getMessage()), "logger": record.name}
            if record.exc_info is not None and record.exc_info[1] is not None:
                line["exception"] = _told(record.exc_info[1])
            _state.write(line)
        except Exception:  # noqa: BLE001 # a line that cannot be written must not end what it tells of
            self.handleError(record)


class Log:
    """Writes lines that carry `part` and whatever `log_context` holds."""

    def __init__(self, part: str) -> None:
        self._part = part

    def info(self, event: str, **fields: Any) -> None:
        """What happens in the ordinary course of things."""
        self._line(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What somebody may want to look at."""
        self._line(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What failed."""
        self._line(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """What somebody has to look at now."""
        self._line(logging.CRITICAL, event, fields)

    def _line(self, level: int, event: str, fields: Mapping[str, Any]) -> None:
        if level >= _state.least:
            name = logging.getLevelName(level).lower()
            _state.write({**_head(name, event), "part": self._part, **fields})


class LineLog:
    """One kind of line, of level info, written for every request."""

    def __init__(self, part: str, event: str) -> None:
        self._part = part
        self._event = event

    def write(self, fields: Mapping[str, Any]) -> None:
        """Write a line, unless only graver ones are wanted."""
        if _state.least <= logging.INFO:
            _state.write({**_head("info", self._event), "part": self._part, **fields})


def get_logger(name: str) -> Log:
    """A logger whose lines carry `part=name`; whether they are written is looked up when they are."""
    return Log(name)


@contextmanager
def log_context(**fields: Any) -> Generator[None]:
    """Have every line of this task carry `fields`, such as the request id, until the block ends."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


@contextmanager
def captured_logs() -> Generator[list[dict[str, Any]]]:
    """All lines as they are, for tests; none is written until the block ends."""
    lines: list[dict[str, Any]] = []
    before = _state.least, _state.write
    _state.least, _state.write = logging.DEBUG, lambda line: lines.append(dict(line))
    try:
        yield lines
    finally:
        _state.least, _state.write = before


def _head(level: str, event: str) -> dict[str, Any]:
    return {
        "timestamp": utc_text(datetime.now(UTC)).replace(" ", "T") + "+00:00",
        "level": level,
        "event": event,
        **_bound.get({}),
    }


def _told(error: BaseException) -> list[dict[str, Any]]:
    """The error and what it came from, with places but no values of variables: those may be prompts, or keys."""
    told: list[dict[str, Any]] = []
    cause: BaseException | None = error
    while cause is not None and len(told) < _MOST_FRAMES:
        frames = traceback.extract_tb(cause.__traceback__)[-_MOST_FRAMES:]
        places = [{"filename": each.filename, "lineno": each.lineno, "name": each.name} for each in frames]
        told.append({"exc_type": type(cause).__name__, "exc_value": str(cause), "frames": places})
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return told
