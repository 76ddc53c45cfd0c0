"""Scripts over `gateway_progress`: what streams have delivered, for whoever recovers them if their process is lost.

The exact count lies in the process's own file (`flights`); here it is about a second old, for other machines.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Table as SqlTable

from galerne.gateway.tables import ProcessRow, ProgressRow
from galerne.kernel import Increase, Insert, Query, Script

__all__ = [
    "Progress",
    "alive_script",
    "died_script",
    "forget_script",
    "left_script",
    "progress_script",
    "silent_script",
]

_PROGRESS = cast(SqlTable, ProgressRow.__table__)
_PROCESSES = cast(SqlTable, ProcessRow.__table__)
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens")
_FORGET = "DELETE FROM gateway_progress WHERE request_id IN :ids"
_LEFT = (
    "SELECT request_id, record, input_tokens, cached_tokens, output_tokens FROM gateway_progress WHERE holder IN :ids"
)
_SEEN = "UPDATE gateway_processes SET seen_ms = :now_ms WHERE id = :id RETURNING id"
_GONE = "DELETE FROM gateway_processes WHERE id IN :ids"
_SILENT = "SELECT id FROM gateway_processes WHERE seen_ms < :before_ms ORDER BY id LIMIT :most FOR UPDATE"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one stream has delivered since the last time; `record` is given the first time only."""

    request_id: str
    holder: str
    record: str | None
    added: tuple[int, int, int]


def progress_script(progress: Sequence[Progress]) -> Script[None]:
    """Write what streams have delivered."""
    new = [(each.request_id, each.holder, each.record, *each.added) for each in progress if each.record is not None]
    if new:
        yield from forget_script([row[0] for row in new])  # told anew after a commit of which nobody knows
        yield Insert(_PROGRESS, ("request_id", "holder", "record", *_COUNTS), new, once_by="request_id")
    yield Increase(
        _PROGRESS, "request_id", _COUNTS, {each.request_id: each.added for each in progress if each.record is None}
    )


def forget_script(request_ids: Collection[str]) -> Script[None]:
    """Those requests are settled."""
    if request_ids:
        yield Query(_FORGET, {"ids": list(request_ids)})


def left_script(holders: Collection[str]) -> Script[list[tuple[str, str, int, int, int]]]:
    """What processes left unsettled: id, record, input, cached and output tokens of each request."""
    if not holders:
        return []
    return [cast(tuple[str, str, int, int, int], tuple(row)) for row in (yield Query(_LEFT, {"ids": list(holders)}))]


def alive_script(holder: str, now_ms: int) -> Script[None]:
    """Say that a process lives."""
    if not (yield Query(_SEEN, {"id": holder, "now_ms": now_ms})):
        yield Insert(_PROCESSES, ("id", "started_ms", "seen_ms"), [(holder, now_ms, now_ms)], once_by="id")


def died_script(holders: Collection[str]) -> Script[None]:
    """Those processes are gone, and nothing of theirs is left to settle."""
    if holders:
        yield Query(_GONE, {"ids": list(holders)})


def silent_script(before_ms: int, most: int) -> Script[list[str]]:
    """At most so many of the processes that have not said since `before_ms` that they live; locked."""
    return [row[0] for row in (yield Query(_SILENT, {"before_ms": before_ms, "most": most}))]
