"""Which replicas are held back because they fail: a state machine for each, fed with what requests and probes saw.

Knows no clock, no network and no chance: the same reports at the same times with the same seed lead to the same states.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b

__all__ = ["Failure", "HealthBook", "HealthState", "Policy", "ReplicaHealth"]

_NOBODY: frozenset[str] = frozenset()
_NEVER = float("-inf")


class Failure(StrEnum):
    """How a replica failed a request. A request's own fault (400, 413, 422, a 404 of an adapter) is no failure."""

    UNREACHABLE = "unreachable"
    LOST = "lost"
    TIMED_OUT = "timed_out"
    SERVER_ERROR = "server_error"
    GARBAGE = "garbage"
    MISCONFIGURED = "misconfigured"
    BUSY = "busy"


_UNANSWERED = frozenset({Failure.UNREACHABLE, Failure.LOST, Failure.TIMED_OUT})


class HealthState(StrEnum):
    """What becomes of a replica: `trial` is after an ejection, one request at a time; `dead` is what probes find."""

    WELL = "well"
    EJECTED = "ejected"
    TRIAL = "trial"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a replica is held back, and for how long.

    Ejected is who leaves `unanswered_in_row` requests without an answer or fails `errors_in_row` in any way, and who
    fails `outlier_percent` points more often than its peers over the last one to two windows, if both had
    `outlier_requests`. A pause doubles from `first_pause_s` to `longest_pause_s`, give or take `jitter_percent`, and
    begins anew after `proven_after_s` without one. A trial that nobody reports on is over after `trial_s`. Dead is who
    misses `misses_in_row` probes while no request succeeds.
    """

    unanswered_in_row: int = 3
    errors_in_row: int = 5
    outlier_percent: int = 30
    outlier_requests: int = 20
    window_s: float = 10.0
    first_pause_s: float = 2.0
    longest_pause_s: float = 60.0
    jitter_percent: int = 25
    proven_after_s: float = 60.0
    trial_s: float = 30.0
    misses_in_row: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaHealth:
    """How a replica is doing: `ejections` are those in a row, `requests` and `failures` those of the last windows."""

    id: str
    state: HealthState
    ejections: int
    last_failure: Failure | None
    requests: int
    failures: int
    serves: frozenset[str] | None


@dataclass(slots=True)
class _Window:
    ends_s: float = _NEVER
    requests: int = 0
    failures: int = 0
    past_requests: int = 0
    past_failures: int = 0

    def count(self, now_s: float, length_s: float, failures: int) -> None:
        self.roll(now_s, length_s)
        self.requests += 1
        self.failures += failures

    def roll(self, now_s: float, length_s: float) -> None:
        if now_s < self.ends_s:
            return
        just_over = now_s < self.ends_s + length_s
        self.past_requests, self.past_failures = (self.requests, self.failures) if just_over else (0, 0)
        self.requests = self.failures = 0
        self.ends_s = now_s + length_s


@dataclass(slots=True)
class _Record:
    window: _Window = field(default_factory=_Window)
    in_row: int = 0
    ejections: int = 0
    ejected_until_s: float | None = None
    trial_until_s: float = _NEVER
    restored_s: float = _NEVER
    last_failure: Failure | None = None
    heard_s: float = _NEVER
    probed_s: float = _NEVER
    misses: int = 0
    dead: bool = False
    serves: frozenset[str] | None = None

    def state(self, now_s: float) -> HealthState:
        if self.dead:
            return HealthState.DEAD
        if self.ejected_until_s is None:
            return HealthState.WELL
        return HealthState.EJECTED if now_s < self.ejected_until_s else HealthState.TRIAL

    def is_out(self, now_s: float) -> bool:
        held = self.ejected_until_s
        return self.dead or (held is not None and (now_s < held or now_s < self.trial_until_s))

    def restore(self, now_s: float) -> None:
        self.ejected_until_s, self.trial_until_s, self.restored_s = None, _NEVER, now_s
        self.in_row, self.window = 0, _Window()


class HealthBook:
    """What is known of every replica's health. Times are of one monotonic clock.

    Of the replicas of a model that answer probes at most half are ejected at once, rounded down, so a model's only
    replica never is: whatever ails all of them alike is not the fault of one.
    """

    def __init__(self, seed: int = 0, policy: Policy | None = None) -> None:
        self._seed = seed
        self._policy = policy or Policy()
        self._records: dict[str, _Record] = {}
        self._troubled: dict[str, _Record] = {}
        self._models: dict[str, frozenset[str]] = {}

    def know(self, models: Mapping[str, Iterable[str]]) -> None:
        """Take `models`, ids of replicas by model, for all that there are; other replicas are forgotten."""
        fresh = {model: frozenset(ids) for model, ids in models.items()}
        if fresh == self._models:
            return
        self._models = fresh
        known = _NOBODY.union(*fresh.values())
        self._records = {each: record for each, record in self._records.items() if each in known}
        self._troubled = {each: record for each, record in self._troubled.items() if each in known}
        self._keep_half()

    def healthy(self, replica_id: str, now_s: float) -> bool:
        """Whether requests may go there; while a trial is under way, no further ones."""
        record = self._troubled.get(replica_id)
        return record is None or not record.is_out(now_s)

    def ejected(self, now_s: float) -> frozenset[str]:
        """The ids of all that are not healthy; costs nothing while there are none."""
        if not self._troubled:
            return _NOBODY
        return frozenset(each for each, record in self._troubled.items() if record.is_out(now_s))

    def serves(self, replica_id: str) -> frozenset[str] | None:
        """The names of the models that the replica listed when it last told; None where that is not known."""
        record = self._records.get(replica_id)
        return None if record is None else record.serves

    def started(self, replica_id: str, now_s: float) -> None:
        """A request was sent there; after an ejection it is the trial that decides."""
        if not self._troubled:
            return
        record = self._troubled.get(replica_id)
        if record is not None and record.ejected_until_s is not None:
            record.trial_until_s = now_s + self._policy.trial_s

    def succeeded(self, replica_id: str, now_s: float) -> None:
        """The replica has begun to answer a request as it should."""
        record = self._record(replica_id)
        record.window.count(now_s, self._policy.window_s, 0)
        record.in_row, record.misses, record.heard_s = 0, 0, now_s
        if not self._troubled or replica_id not in self._troubled:
            return
        record.dead = False
        # An answer from before the ejection is late, not a recovery.
        if record.ejected_until_s is not None and now_s >= record.ejected_until_s:
            record.restore(now_s)
        self._sort(replica_id, record)

    def failed(self, replica_id: str, now_s: float, kind: Failure) -> None:
        """The replica has failed a request; one that is busy is not sick."""
        record = self._record(replica_id)
        record.last_failure = kind
        if kind is Failure.BUSY:
            return
        record.window.count(now_s, self._policy.window_s, 1)
        record.in_row += 1
        if record.ejected_until_s is not None:
            if now_s >= record.ejected_until_s:
                self._eject(replica_id, record, now_s)
            return
        most = self._policy.unanswered_in_row if kind in _UNANSWERED else self._policy.errors_in_row
        if (record.in_row >= most or self._is_outlier(replica_id, now_s)) and self._may_eject(replica_id):
            self._eject(replica_id, record, now_s)

    def probed(self, replica_id: str, now_s: float, *, alive: bool, serves: frozenset[str] | None = None) -> None:
        """The replica was asked whether it lives. What it `serves` counts when it does."""
        record = self._record(replica_id)
        heard_meanwhile, record.probed_s = record.heard_s > record.probed_s, now_s
        if alive:
            record.misses, record.serves = 0, serves
            revived, record.dead = record.dead, False
            if record.ejected_until_s is not None and (revived or record.last_failure is Failure.UNREACHABLE):
                record.ejected_until_s = min(record.ejected_until_s, now_s)
        elif not heard_meanwhile:
            # A server under full load may be slow to list its models; while it answers requests it lives.
            record.misses += 1
            record.dead = record.dead or record.misses >= self._policy.misses_in_row
        self._sort(replica_id, record)
        self._keep_half()

    def snapshot(self, now_s: float) -> tuple[ReplicaHealth, ...]:
        """Every replica that was heard of, by id."""
        return tuple(_health(each, self._records[each], now_s, self._policy) for each in sorted(self._records))

    def _record(self, replica_id: str) -> _Record:
        record = self._records.get(replica_id)
        if record is None:
            record = self._records[replica_id] = _Record()
        return record

    def _sort(self, replica_id: str, record: _Record) -> None:
        if record.dead or record.ejected_until_s is not None:
            self._troubled[replica_id] = record
        else:
            self._troubled.pop(replica_id, None)

    def _eject(self, replica_id: str, record: _Record, now_s: float) -> None:
        policy = self._policy
        if record.ejected_until_s is None and now_s - record.restored_s >= policy.proven_after_s:
            record.ejections = 0
        record.ejections += 1
        pause_s = min(policy.longest_pause_s, policy.first_pause_s * 2.0 ** min(record.ejections - 1, 64))
        record.ejected_until_s = now_s + pause_s * self._jitter(replica_id, record.ejections)
        record.trial_until_s = _NEVER
        self._sort(replica_id, record)

    def _jitter(self, replica_id: str, ejections: int) -> float:
        drawn = blake2b(f"{self._seed} {replica_id} {ejections}".encode(), digest_size=4).digest()
        return 1 + self._policy.jitter_percent / 100 * (int.from_bytes(drawn) / 2**31 - 1)

    def _is_outlier(self, replica_id: str, now_s: float) -> bool:
        requests, failures = self._seen(replica_id, now_s)
        if requests < self._policy.outlier_requests:
            return False
        peers = _NOBODY.union(*self._groups(replica_id)) - {replica_id}
        seen = [self._seen(each, now_s) for each in peers if each in self._records]
        peer_requests, peer_failures = sum(each[0] for each in seen), sum(each[1] for each in seen)
        if peer_requests < self._policy.outlier_requests:
            return False
        more = failures * peer_requests - peer_failures * requests
        return 100 * more >= self._policy.outlier_percent * requests * peer_requests

    def _seen(self, replica_id: str, now_s: float) -> tuple[int, int]:
        window = self._records[replica_id].window
        window.roll(now_s, self._policy.window_s)
        return window.requests + window.past_requests, window.failures + window.past_failures

    def _groups(self, replica_id: str) -> list[frozenset[str]]:
        return [ids for ids in self._models.values() if replica_id in ids]

    def _may_eject(self, replica_id: str) -> bool:
        groups = self._groups(replica_id)
        return bool(groups) and all(self._excess(ids | {replica_id}, one_more=1) <= 0 for ids in groups)

    def _excess(self, ids: frozenset[str], one_more: int = 0) -> int:
        records = [self._records[each] for each in ids if each in self._records and not self._records[each].dead]
        alive = len(ids) - sum(self._records[each].dead for each in ids if each in self._records)
        return sum(record.ejected_until_s is not None for record in records) + one_more - alive // 2

    def _keep_half(self) -> None:
        """Bring back who has waited longest where deaths leave more than half of the living ejected."""
        if not self._troubled:
            return
        for ids in self._models.values():
            while self._excess(ids) > 0:
                waiting = [
                    (record.ejected_until_s, each)
                    for each, record in self._troubled.items()
                    if each in ids and not record.dead and record.ejected_until_s is not None
                ]
                soonest_s, first = min(waiting)
                record = self._records[first]
                record.restore(soonest_s)
                self._sort(first, record)


def _health(replica_id: str, record: _Record, now_s: float, policy: Policy) -> ReplicaHealth:
    window = record.window
    window.roll(now_s, policy.window_s)
    return ReplicaHealth(
        id=replica_id,
        state=record.state(now_s),
        ejections=record.ejections,
        last_failure=record.last_failure,
        requests=window.requests + window.past_requests,
        failures=window.failures + window.past_failures,
        serves=record.serves,
    )
