"""Events as values: what cannot be metered cannot be made, and one id has one content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.kernel import Conflict, InvariantViolated
from galerne.metering import Totals
from galerne.metering.events import add, distinct
from tests.metering.events import NOON, event


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": -1},
        {"cached_tokens": -1},
        {"output_tokens": -1},
        {"queue_ms": -0.1},
        {"ttft_ms": -0.1},
        {"total_ms": -0.1},
        {"total_ms": float("nan")},
        {"queue_ms": float("inf")},
        {"started_at": NOON.replace(tzinfo=None)},
        {"id": "chatcmpl-of-some-upstream"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_event_that_cannot_be_is_refused_when_it_is_made(change: dict[str, object]) -> None:
    with pytest.raises(InvariantViolated):
        event(**change)


def test_a_batch_may_repeat_an_event_but_not_contradict_it() -> None:
    assert list(distinct([event(2), event(1), event(2)]).values()) == [event(1), event(2)]
    with pytest.raises(Conflict):
        distinct([event(1), event(1, output_tokens=6)])


@given(st.lists(st.builds(Totals, requests=st.integers(0), input_tokens=st.integers(0), output_tokens=st.integers(0))))
def test_a_sum_of_sums_is_the_sum(parts: list[Totals]) -> None:
    assert add(parts).total_tokens == sum(part.total_tokens for part in parts)
    assert add([add(parts[:2]), add(parts[2:])]) == add(parts)
