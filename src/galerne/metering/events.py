"""What one request consumed, and what a set of such events adds up to. Pure: no prices, no database."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal

from msgspec import Struct

from galerne.kernel import Conflict, invariant

Outcome = Literal["completed", "cancelled", "failed"]

_REQUEST_ID = re.compile("[0-9a-f]{32}")


class UsageEvent(Struct, frozen=True, kw_only=True):
    """What one request consumed. `id` is our own request id, 32 hexadecimal digits; an upstream's id is never trusted.

    Token classes are disjoint: `input_tokens` were computed, `cached_tokens` found in a prefix cache, and the prompt is
    their sum. `estimated`: we counted because the engine did not. `partial`: the answer ended early.
    Times are milliseconds; `ttft_ms` is None when no token came. `tier` is the service tier that was served, `zone`
    where the replica that answered stands.
    """

    id: str
    organisation_id: str
    workspace_id: str | None
    key_id: str
    model: str
    model_version: str
    endpoint: str
    dialect: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    estimated: bool
    streamed: bool
    partial: bool
    outcome: Outcome
    finish_reason: str | None
    status: int
    started_at: datetime
    queue_ms: float
    ttft_ms: float | None
    total_ms: float
    tier: str = "standard"
    zone: str = ""

    def __post_init__(self) -> None:
        # Checked here too, not only by the database: one bad event would undo a whole batch of other people's.
        invariant(min(self.input_tokens, self.cached_tokens, self.output_tokens) >= 0, "a token count is negative")
        lasting = 0 <= self.queue_ms < math.inf and 0 <= self.total_ms < math.inf
        invariant(lasting and 0 <= (self.ttft_ms or 0) < math.inf, "a duration is negative or not a number")
        invariant(
            _REQUEST_ID.fullmatch(self.id) is not None, "a usage event's id is our request id, 32 hexadecimal digits"
        )
        invariant(self.started_at.tzinfo is not None, "a time without a zone cannot be metered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over events: how many requests, and tokens of each class."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """All tokens, computed, cached and generated."""
        return self.input_tokens + self.cached_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which events: each field that is not None narrows. `since` is inclusive, `until` exclusive, both aware."""

    workspace_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Sums over everything that the filter lets through, and one page of the events, newest first.

    `by_model` is in order of total tokens, largest first. `next_after` is None on the last page.
    """

    totals: Totals
    by_model: list[tuple[str, Totals]]
    events: list[UsageEvent]
    next_after: str | None


def add(totals: Iterable[Totals]) -> Totals:
    """The sum of sums."""
    parts = list(totals)
    return Totals(
        requests=sum(part.requests for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        cached_tokens=sum(part.cached_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
    )


def distinct(events: Sequence[UsageEvent]) -> dict[str, UsageEvent]:
    """The events by id, in the order of ids; `Conflict` when two of one id differ."""
    found: dict[str, UsageEvent] = {}
    for event in events:
        first = found.setdefault(event.id, event)
        if first is not event:
            refuse_other_content(_content(first), event)
    # One order for all writers: two batches that share ids then wait for each other instead of deadlocking.
    return dict(sorted(found.items()))


def refuse_other_content(recorded: tuple[Any, ...], offered: UsageEvent) -> None:
    """Return if `recorded`, the values of an event's `CONTENT` fields, are those of `offered`, else raise `Conflict`.

    What was counted once is never counted differently.
    """
    if recorded != _content(offered):
        raise Conflict(
            f"The usage of request {offered.id} is already recorded with other content.", code="usage_conflict"
        )


CONTENT = tuple(name for name in UsageEvent.__struct_fields__ if name != "started_at")
"""What two records of one request must agree on; `id` first. The time follows from the id."""

_content: Callable[[UsageEvent], tuple[Any, ...]] = attrgetter(*CONTENT)
