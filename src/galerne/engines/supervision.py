"""Knows when an engine process is started, probed, restarted and ended: a pure function of (state, event, time)."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias


class State(StrEnum):
    """What an engine is doing; one that is `failed` keeps failing, and is still retried after pauses."""

    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"
    FAILED = "failed"
    DRAINING = "draining"
    STOPPED = "stopped"


class Action(StrEnum):
    """What the driver has to do; `terminate` asks the process to finish (SIGTERM), `kill` does not ask (SIGKILL)."""

    SPAWN = "spawn"
    PROBE = "probe"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True)
class Policy:
    """Every duration of supervision, in seconds, and how many failures mean what."""

    start_timeout_s: float = 300.0
    start_probe_s: float = 0.1
    ready_probe_s: float = 1.0
    misses_allowed: int = 4
    first_pause_s: float = 0.25
    longest_pause_s: float = 30.0
    proven_after_s: float = 30.0
    failed_after: int = 5
    grace_s: float = 30.0


@dataclass(frozen=True)
class Spawned:
    """The process was started."""


@dataclass(frozen=True)
class Probed:
    """The process was asked whether it is well."""

    healthy: bool


@dataclass(frozen=True)
class Exited:
    """The process ended, or could not be started; `reason` says how."""

    reason: str


@dataclass(frozen=True)
class StopRequested:
    """The engine is wanted no longer."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Spawned | Probed | Exited | StopRequested | Tick


@dataclass(frozen=True)
class Supervised:
    """One engine under supervision.

    `failures` counts those in a row, `restarts` all of them; `wake_at` is when the next `Tick` is due, None for never;
    times are of one monotonic clock.
    """

    state: State
    restarts: int = 0
    failures: int = 0
    misses: int = 0
    last_error: str | None = None
    probing: bool = False
    killed_for: str | None = None
    ready_since: float = 0.0
    probe_at: float | None = None
    deadline: float | None = None

    @property
    def wake_at(self) -> float | None:
        """When the next `Tick` is due, None while only other events matter."""
        times = [time for time in (None if self.probing else self.probe_at, self.deadline) if time is not None]
        return min(times, default=None)


Step: TypeAlias = tuple[Supervised, tuple[Action, ...]]


def begin() -> Step:
    """A new engine and what to do first."""
    return Supervised(State.STARTING), (Action.SPAWN,)


def step(engine: Supervised, event: Event, now: float, policy: Policy) -> Step:
    """The engine after `event` at `now`, and what to do about it."""
    match event:
        case Spawned():
            return _spawned(engine, now, policy)
        case Probed(healthy):
            return _probed(engine, healthy, now, policy)
        case Exited(reason):
            return _exited(engine, reason, now, policy), ()
        case StopRequested():
            return _stopping(engine, now, policy)
        case Tick():
            return _ticked(engine, now, policy)


def pause_s(failures: int, policy: Policy) -> float:
    """How long to wait after the last of `failures` in a row, at least one: doubling, up to the policy's longest."""
    return min(policy.longest_pause_s, policy.first_pause_s * 2.0 ** min(failures - 1, 64))


def _spawned(engine: Supervised, now: float, policy: Policy) -> Step:
    if engine.state is State.DRAINING:
        return engine, (Action.TERMINATE,)
    return replace(engine, deadline=now + policy.start_timeout_s, probe_at=now + policy.start_probe_s), ()


def _probed(engine: Supervised, healthy: bool, now: float, policy: Policy) -> Step:
    engine = replace(engine, probing=False)
    if engine.killed_for or engine.state not in (State.STARTING, State.READY):
        return engine, ()
    if engine.state is State.STARTING:
        if not healthy:
            return replace(engine, probe_at=now + policy.start_probe_s), ()
        ready = replace(engine, state=State.READY, ready_since=now, deadline=None, misses=0)
        return replace(ready, probe_at=now + policy.ready_probe_s), ()
    misses = 0 if healthy else engine.misses + 1
    if misses > policy.misses_allowed:
        return _killing(engine, f"did not answer {misses} times in a row")
    proven = now - engine.ready_since >= policy.proven_after_s
    engine = replace(engine, misses=misses, probe_at=now + policy.ready_probe_s)
    return (replace(engine, failures=0, last_error=None) if proven and healthy else engine), ()


def _exited(engine: Supervised, reason: str, now: float, policy: Policy) -> Supervised:
    calm = replace(engine, probing=False, probe_at=None, deadline=None, killed_for=None, misses=0)
    if engine.state in (State.DRAINING, State.STOPPED):
        return replace(calm, state=State.STOPPED)
    proven = engine.state is State.READY and now - engine.ready_since >= policy.proven_after_s
    failures = 1 if proven else engine.failures + 1
    return replace(
        calm,
        state=State.FAILED if failures >= policy.failed_after else State.BACKING_OFF,
        failures=failures,
        last_error=engine.killed_for or reason,
        deadline=now + pause_s(failures, policy),
    )


def _stopping(engine: Supervised, now: float, policy: Policy) -> Step:
    if engine.state in (State.STARTING, State.READY):
        draining = replace(engine, state=State.DRAINING, probe_at=None, deadline=now + policy.grace_s)
        return draining, (Action.TERMINATE,)
    if engine.state in (State.BACKING_OFF, State.FAILED):
        return replace(engine, state=State.STOPPED, deadline=None), ()
    return engine, ()


def _ticked(engine: Supervised, now: float, policy: Policy) -> Step:
    if engine.deadline is not None and now >= engine.deadline:
        return _overdue(engine, policy)
    if engine.probe_at is not None and now >= engine.probe_at and not engine.probing:
        return replace(engine, probing=True), (Action.PROBE,)
    return engine, ()


def _overdue(engine: Supervised, policy: Policy) -> Step:
    if engine.state in (State.BACKING_OFF, State.FAILED):
        again = replace(engine, state=State.STARTING, restarts=engine.restarts + 1, deadline=None)
        return again, (Action.SPAWN,)
    if engine.state is State.STARTING:
        return _killing(engine, f"was not ready after {policy.start_timeout_s:g} s")
    return replace(engine, deadline=None), (Action.KILL,)


def _killing(engine: Supervised, reason: str) -> Step:
    return replace(engine, killed_for=reason, probe_at=None, deadline=None), (Action.KILL,)
