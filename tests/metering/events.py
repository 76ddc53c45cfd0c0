"""Usage events for the tests of metering."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from galerne.metering import UsageEvent

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def event(number: int = 0, **changes: Any) -> UsageEvent:
    fields: dict[str, Any] = {
        "id": f"{number:032x}",
        "organisation_id": "org-1",
        "workspace_id": None,
        "key_id": "key-1",
        "model": "brise",
        "model_version": "brise-1",
        "endpoint": "chat.completions",
        "dialect": "openai",
        "input_tokens": 10,
        "cached_tokens": 3,
        "output_tokens": 5,
        "estimated": False,
        "streamed": True,
        "partial": False,
        "outcome": "completed",
        "finish_reason": "stop",
        "status": 200,
        "started_at": NOON + timedelta(seconds=number),
        "queue_ms": 0.1,
        "ttft_ms": 12.5,
        "total_ms": 80.25,
    }
    return UsageEvent(**(fields | changes))


tokens = st.integers(0, 2**40)
# Hypothesis takes bounds without a zone and adds the zone itself.
times = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - see above
durations = st.floats(0, 1e9)
events = st.builds(
    event,
    number=st.integers(0, 2**20),
    workspace_id=st.sampled_from([None, "space"]),
    model=st.sampled_from(["brise", "minilm", "mistral-large"]),
    input_tokens=tokens,
    cached_tokens=tokens,
    output_tokens=tokens,
    estimated=st.booleans(),
    outcome=st.sampled_from(["completed", "cancelled", "failed"]),
    finish_reason=st.sampled_from([None, "stop", "length"]),
    started_at=times,
    queue_ms=durations,
    ttft_ms=st.none() | durations,
    total_ms=durations,
)
batches = st.lists(events, min_size=1, max_size=8, unique_by=lambda one: one.id)
