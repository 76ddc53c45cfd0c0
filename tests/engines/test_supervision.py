from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.engines.supervision import (
    Action,
    Event,
    Exited,
    Policy,
    Probed,
    Spawned,
    State,
    StopRequested,
    Supervised,
    Tick,
    begin,
    pause_s,
    step,
)

POLICY = Policy()
READY = Supervised(State.READY, ready_since=0.0, probe_at=1.0)
EVENTS: list[Event] = [Spawned(), Probed(True), Probed(False), Exited("gone"), StopRequested(), Tick()]


def test_new_engine_is_spawned_probed_and_then_ready() -> None:
    engine, actions = begin()
    assert actions == (Action.SPAWN,)
    engine, actions = step(engine, Spawned(), 0.0, POLICY)
    assert actions == ()
    engine, actions = step(engine, Tick(), 0.1, POLICY)
    assert actions == (Action.PROBE,)
    engine, _ = step(engine, Probed(False), 0.2, POLICY)
    assert engine.state is State.STARTING
    engine, _ = step(engine, Probed(True), 0.4, POLICY)
    assert engine.state is State.READY


def test_probe_is_not_repeated_while_one_is_under_way() -> None:
    engine, actions = step(READY, Tick(), 1.0, POLICY)
    assert actions == (Action.PROBE,)
    assert step(engine, Tick(), 5.0, POLICY)[1] == ()


def test_exit_of_ready_engine_is_followed_by_a_pause_and_a_restart() -> None:
    engine, actions = step(READY, Exited("was ended by SIGKILL"), 100.0, POLICY)
    assert (engine.state, actions) == (State.BACKING_OFF, ())
    assert engine.last_error == "was ended by SIGKILL"
    assert step(engine, Tick(), 100.0, POLICY)[1] == ()
    engine, actions = step(engine, Tick(), 100.0 + POLICY.first_pause_s, POLICY)
    assert (engine.state, actions, engine.restarts) == (State.STARTING, (Action.SPAWN,), 1)


def test_engine_that_never_gets_ready_is_killed_and_says_so() -> None:
    engine, _ = step(begin()[0], Spawned(), 0.0, POLICY)
    engine, actions = step(engine, Tick(), POLICY.start_timeout_s, POLICY)
    assert actions == (Action.KILL,)
    engine, _ = step(engine, Exited("was ended by SIGKILL"), POLICY.start_timeout_s, POLICY)
    assert engine.last_error == "was not ready after 300 s"


def test_engine_that_stops_answering_is_killed_after_the_allowed_misses() -> None:
    engine, actions, now = READY, (), 1.0
    for _ in range(POLICY.misses_allowed + 1):
        engine, _ = step(engine, Tick(), now, POLICY)
        engine, actions = step(engine, Probed(False), now, POLICY)
        now += 1.0
    assert actions == (Action.KILL,)


def test_an_answer_forgives_earlier_misses() -> None:
    engine, _ = step(replace(READY, misses=3), Probed(True), 2.0, POLICY)
    assert engine.misses == 0


def test_pauses_double_up_to_the_longest() -> None:
    assert [pause_s(failures, POLICY) for failures in (1, 2, 3, 4, 8, 9, 2000)] == [0.25, 0.5, 1, 2, 30, 30, 30]


def test_engine_that_keeps_failing_is_called_failed_and_is_still_retried() -> None:
    engine = replace(begin()[0], failures=POLICY.failed_after - 1)
    engine, _ = step(engine, Exited("no such model"), 0.0, POLICY)
    assert (engine.state, engine.last_error) == (State.FAILED, "no such model")
    engine, actions = step(engine, Tick(), 60.0, POLICY)
    assert (engine.state, actions) == (State.STARTING, (Action.SPAWN,))


def test_failures_are_forgotten_once_the_engine_has_proven_itself() -> None:
    engine, _ = step(replace(READY, failures=4, last_error="old"), Probed(True), POLICY.proven_after_s, POLICY)
    assert (engine.failures, engine.last_error) == (0, None)


@pytest.mark.parametrize("state", [State.STARTING, State.READY])
def test_stop_asks_a_running_process_first_and_kills_it_after_the_grace(state: State) -> None:
    engine, actions = step(Supervised(state), StopRequested(), 10.0, POLICY)
    assert (engine.state, actions) == (State.DRAINING, (Action.TERMINATE,))
    assert step(engine, Tick(), 39.9, POLICY)[1] == ()
    engine, actions = step(engine, Tick(), 40.0, POLICY)
    assert actions == (Action.KILL,)
    engine, actions = step(engine, Exited("was ended by SIGKILL"), 40.1, POLICY)
    assert (engine.state, actions) == (State.STOPPED, ())


@pytest.mark.parametrize("state", [State.BACKING_OFF, State.FAILED])
def test_stop_of_an_engine_without_a_process_is_immediate(state: State) -> None:
    engine, actions = step(Supervised(state, deadline=99.0), StopRequested(), 10.0, POLICY)
    assert (engine.state, actions, engine.wake_at) == (State.STOPPED, (), None)


def test_process_that_was_still_being_spawned_when_stop_came_is_terminated() -> None:
    engine, _ = step(begin()[0], StopRequested(), 0.0, POLICY)
    assert step(engine, Spawned(), 0.1, POLICY)[1] == (Action.TERMINATE,)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 50)), max_size=60))
def test_any_history_keeps_one_process_at_most_and_always_has_something_to_wait_for(
    history: list[tuple[Event, float]],
) -> None:
    engine, actions = begin()
    alive, now = False, 0.0
    for event, passed in [(Spawned(), 0.0), *history]:
        now += passed
        alive = (alive or Action.SPAWN in actions) and not isinstance(event, Exited)
        if isinstance(event, Exited | Spawned | Probed) and not (alive or isinstance(event, Exited)):
            continue
        before = engine
        engine, actions = step(engine, event, now, POLICY)
        if Action.SPAWN in actions:
            assert not alive
            assert before.state in (State.BACKING_OFF, State.FAILED)
        if before.state is State.STOPPED:
            assert engine.state is State.STOPPED
        if engine.state in (State.READY, State.BACKING_OFF, State.FAILED) and not engine.killed_for:
            assert engine.wake_at is not None or engine.probing
        assert 0 <= engine.failures <= len(history) + 1
