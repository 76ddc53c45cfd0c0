import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from galerne.gateway.health import Failure, HealthBook, HealthState, Policy
from galerne.gateway.routing import Load, Refusal, Replica, Wanted, choose_replica

POLICY = Policy()
LONGEST_FIRST_PAUSE_S = POLICY.first_pause_s * (1 + POLICY.jitter_percent / 100)
UNANSWERED = [Failure.UNREACHABLE, Failure.LOST, Failure.TIMED_OUT]


def book(*ids: str, seed: int = 0) -> HealthBook:
    fresh = HealthBook(seed)
    fresh.know({"model": ids})
    return fresh


def fail(health: HealthBook, replica_id: str, now_s: float, times: int, kind: Failure = Failure.LOST) -> None:
    for _ in range(times):
        health.failed(replica_id, now_s, kind)


def state(health: HealthBook, replica_id: str, now_s: float) -> HealthState:
    return {each.id: each.state for each in health.snapshot(now_s)}[replica_id]


@pytest.mark.parametrize(
    ("kind", "times"), [(kind, POLICY.unanswered_in_row) for kind in UNANSWERED] + [(Failure.SERVER_ERROR, 5)]
)
def test_failures_in_a_row_eject(kind: Failure, times: int) -> None:
    health = book("a", "b")
    fail(health, "a", 0, times - 1, kind)
    assert health.healthy("a", 0)
    fail(health, "a", 0, 1, kind)
    assert not health.healthy("a", 0)
    assert health.ejected(0) == {"a"}
    assert health.healthy("b", 0)


def test_a_success_in_between_breaks_the_row() -> None:
    health = book("a", "b")
    for second in range(10):
        fail(health, "a", second, 2)
        health.succeeded("a", second)
    assert health.ejected(10) == set()


def test_a_busy_replica_is_not_sick() -> None:
    health = book("a", "b")
    fail(health, "a", 0, 100, Failure.BUSY)
    assert health.ejected(0) == set()


def test_after_the_pause_one_trial_decides() -> None:
    health = book("a", "b")
    fail(health, "a", 0, 3)
    later_s = LONGEST_FIRST_PAUSE_S
    assert health.healthy("a", later_s)
    health.started("a", later_s)
    assert not health.healthy("a", later_s)
    assert state(health, "a", later_s) is HealthState.TRIAL
    health.succeeded("a", later_s + 1)
    assert state(health, "a", later_s + 1) is HealthState.WELL
    fail(health, "a", later_s + 1, 2)
    assert health.healthy("a", later_s + 1)


def test_a_failed_trial_ejects_for_twice_as_long_up_to_a_minute() -> None:
    health, now_s, pauses = book("a", "b"), 0.0, []
    fail(health, "a", now_s, 3)
    for _ in range(8):
        until_s = next(now_s + tick / 100 for tick in itertools.count() if health.healthy("a", now_s + tick / 100))
        pauses.append(until_s - now_s)
        now_s = until_s
        health.started("a", now_s)
        fail(health, "a", now_s, 1)
    for pause_s, expected_s in zip(pauses, [2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert pause_s == pytest.approx(expected_s, rel=POLICY.jitter_percent / 100 + 0.01)
    assert len(set(pauses[5:])) == 3


def test_jitter_differs_by_seed_and_is_the_same_for_the_same() -> None:
    def pause_s(seed: int) -> float:
        health = book("a", "b", seed=seed)
        fail(health, "a", 0, 3)
        return next(tick / 1000 for tick in itertools.count() if health.healthy("a", tick / 1000))

    assert pause_s(1) == pause_s(1)
    assert len({pause_s(seed) for seed in range(5)}) == 5


def test_an_answer_that_was_under_way_before_the_ejection_is_no_recovery() -> None:
    health = book("a", "b")
    fail(health, "a", 0, 3)
    health.succeeded("a", 0.5)
    assert not health.healthy("a", 0.6)


def test_a_trial_that_nobody_reports_on_does_not_block_for_ever() -> None:
    health = book("a", "b")
    fail(health, "a", 0, 3)
    health.started("a", LONGEST_FIRST_PAUSE_S)
    assert not health.healthy("a", LONGEST_FIRST_PAUSE_S + POLICY.trial_s - 1)
    assert health.healthy("a", LONGEST_FIRST_PAUSE_S + POLICY.trial_s)


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_at_most_half_are_ejected_as_outliers(count: int, most: int) -> None:
    ids = [str(number) for number in range(count)]
    health = book(*ids)
    for each in ids:
        fail(health, each, 0, 50)
    assert len(health.ejected(0)) == most


def test_all_may_be_dead_when_probes_say_so() -> None:
    health = book("a", "b")
    for each in ("a", "b"):
        for second in range(POLICY.misses_in_row):
            health.probed(each, second, alive=False)
    assert health.ejected(9) == {"a", "b"}
    health.probed("a", 10, alive=True)
    assert health.ejected(10) == {"b"}


def test_deaths_bring_back_who_was_ejected_beside_them() -> None:
    health = book("a", "b")
    fail(health, "a", 0, 3)
    health.probed("b", 0, alive=False)
    health.probed("b", 1, alive=False)
    assert health.ejected(1) == {"b"}


def test_one_missed_probe_is_not_death() -> None:
    health = book("a")
    health.probed("a", 0, alive=False)
    assert health.healthy("a", 0)
    health.probed("a", 1, alive=True)
    health.probed("a", 2, alive=False)
    assert health.healthy("a", 2)


def test_a_server_that_answers_requests_lives_whatever_its_probes_say() -> None:
    health = book("a", "b")
    for second in range(10):
        health.succeeded("a", second)
        health.probed("a", second + 0.5, alive=False)
    assert health.healthy("a", 10)


def test_a_request_that_succeeds_ends_death_at_once() -> None:
    health = book("a", "b")
    for second in range(3):
        health.probed("a", second, alive=False)
    health.succeeded("a", 3)
    assert health.healthy("a", 3)


def test_who_could_not_be_reached_and_answers_a_probe_is_tried_before_the_pause_is_over() -> None:
    health = book("a", "b", "c", "d")
    fail(health, "a", 0, 3, Failure.UNREACHABLE)
    fail(health, "b", 0, 5, Failure.SERVER_ERROR)
    health.probed("a", 0.5, alive=True)
    health.probed("b", 0.5, alive=True)
    assert health.ejected(0.5) == {"b"}
    health.started("a", 0.5)
    assert health.ejected(0.5) == {"a", "b"}


def test_who_fails_far_more_often_than_its_peers_is_an_outlier() -> None:
    health = book("a", "b", "c")
    for number in range(100):
        now_s = number / 20
        for each in ("b", "c"):
            health.succeeded(each, now_s)
        (health.succeeded if number % 2 else _server_error(health))("a", now_s)
    assert health.ejected(5) == {"a"}


def test_who_fails_as_often_as_its_peers_is_none() -> None:
    health = book("a", "b", "c")
    for number in range(200):
        for each in ("a", "b", "c"):
            (health.succeeded if number % 2 else _server_error(health))(each, number / 20)
    assert health.ejected(10) == set()


def test_old_failures_are_forgotten() -> None:
    health = book("a", "b")
    for number in range(60):
        health.succeeded("b", number)
        (health.succeeded if number % 2 else _server_error(health))("a", number / 1000)
        if number == 18:
            assert health.snapshot(0.1)[0].failures == 10
    assert {each.id: each.failures for each in health.snapshot(100)} == {"a": 0, "b": 0}


def test_what_a_server_lists_is_known_while_it_tells() -> None:
    health = book("a")
    assert health.serves("a") is None
    health.probed("a", 0, alive=True, serves=frozenset({"m"}))
    health.probed("a", 1, alive=False)
    assert health.serves("a") == {"m"}
    health.probed("a", 2, alive=True)
    assert health.serves("a") is None


def test_replicas_that_are_gone_are_forgotten() -> None:
    health = book("a", "b")
    fail(health, "a", 0, 3)
    health.know({"model": ["b"]})
    assert health.ejected(0) == set()
    assert health.snapshot(0) == ()


def _server_error(health: HealthBook) -> Callable[[str, float], None]:
    return lambda replica_id, now_s: health.failed(replica_id, now_s, Failure.SERVER_ERROR)


class AnyReports(RuleBasedStateMachine):
    """Whatever is reported in whatever order: never more than half of the living are held back."""

    @initialize(count=st.integers(1, 6), shared=st.booleans())
    def begin(self, count: int, shared: bool) -> None:
        self.now_s = 0.0
        self.ids = [str(number) for number in range(count)]
        self.models: Mapping[str, list[str]] = {"m": self.ids, **({"n": self.ids[:2]} if shared else {})}
        self.health = HealthBook(7)
        self.health.know(self.models)

    @rule(which=st.integers(0, 5), kind=st.sampled_from(Failure), times=st.integers(1, 6))
    def fail(self, which: int, kind: Failure, times: int) -> None:
        fail(self.health, self.ids[which % len(self.ids)], self.now_s, times, kind)

    @rule(which=st.integers(0, 5))
    def succeed(self, which: int) -> None:
        self.health.succeeded(self.ids[which % len(self.ids)], self.now_s)

    @rule(which=st.integers(0, 5), alive=st.booleans())
    def probe(self, which: int, alive: bool) -> None:
        self.health.probed(self.ids[which % len(self.ids)], self.now_s, alive=alive)

    @rule(which=st.integers(0, 5))
    def start(self, which: int) -> None:
        self.health.started(self.ids[which % len(self.ids)], self.now_s)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def lose_the_last(self) -> None:
        if len(self.ids) > 1:
            self.ids.pop()
            self.models = {model: [each for each in ids if each in self.ids] for model, ids in self.models.items()}
            self.health.know(self.models)

    @invariant()
    def at_most_half_of_the_living_are_ejected(self) -> None:
        dead = {each.id for each in self.health.snapshot(self.now_s) if each.state is HealthState.DEAD}
        out = self.health.ejected(self.now_s)
        assert dead <= out
        for ids in self.models.values():
            assert len((out - dead) & set(ids)) <= len(set(ids) - dead) // 2
        assert out == {each for each in self.ids if not self.health.healthy(each, self.now_s)}


TestAnyReports: Any = AnyReports.TestCase


class Servers:
    """A simulated second-by-second day of replicas: `answers` says what becomes of a request at a time."""

    def __init__(self, seed: int, ids: list[str], answers: Callable[[str, float], Failure | None]) -> None:
        self.random = Random(seed)
        self.replicas = [Replica(id=each, base_url="http://x/v1") for each in ids]
        self.health = HealthBook(seed)
        self.health.know({"model": ids})
        self.answers = answers
        self.loads = {each: Load() for each in ids}
        self.sent: Counter[str] = Counter()
        self.failed: list[float] = []
        self.refused: list[float] = []
        self.hanging: list[tuple[float, str]] = []

    def run(self, seconds: int, *, a_second: int = 50, hang_s: float = 30.0, probes: bool = True) -> None:
        for tick in range(seconds * a_second):
            now_s = tick / a_second
            self._time_out(now_s)
            if probes and tick % (5 * a_second) in (0, a_second):  # the second one soon after, as the driver does
                for each in self.loads:
                    self.health.probed(each, now_s, alive=self.answers(each, now_s) not in UNANSWERED)
            self._request(now_s, hang_s)

    def _time_out(self, now_s: float) -> None:
        while self.hanging and self.hanging[0][0] <= now_s:
            _, replica_id = self.hanging.pop(0)
            self.loads[replica_id].tokens -= 100
            self.health.failed(replica_id, now_s, Failure.TIMED_OUT)
            self.failed.append(now_s)

    def _request(self, now_s: float, hang_s: float) -> None:
        wanted = Wanted(affinity=self.random.randbytes(16), seed=self.random.randrange(1000))
        chosen = choose_replica(self.replicas, self.loads, wanted, self.health.ejected(now_s))
        if isinstance(chosen, Refusal):
            self.refused.append(now_s)
            return
        self.health.started(chosen.id, now_s)
        self.sent[chosen.id] += 1
        outcome = self.answers(chosen.id, now_s)
        if outcome is Failure.TIMED_OUT:
            self.loads[chosen.id].tokens += 100
            self.hanging.append((now_s + hang_s, chosen.id))
        elif outcome is not None:
            self.health.failed(chosen.id, now_s, outcome)
            self.failed.append(now_s)
        else:
            self.health.succeeded(chosen.id, now_s)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("probes", [True, False])
def test_one_dead_of_three_costs_a_handful_of_requests(seed: int, probes: bool) -> None:
    servers = Servers(seed, ["a", "b", "c"], lambda each, _: Failure.UNREACHABLE if each == "b" else None)
    servers.run(300, probes=probes)
    assert servers.sent["b"] <= 3 + (0 if probes else 9)
    assert servers.refused == []
    assert len(servers.failed) == servers.sent["b"]
    assert servers.sent["a"] == pytest.approx(7_500, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_one_hanging_of_three_takes_requests_only_until_its_probes_say_so(seed: int) -> None:
    servers = Servers(
        seed, ["a", "b", "c"], lambda each, now_s: Failure.TIMED_OUT if each == "b" and now_s > 20 else None
    )
    servers.run(120)
    assert servers.refused == []
    assert max(servers.failed) <= 20 + 11 + 30  # two probes, then what was under way runs into its time limit
    assert len(servers.failed) <= 11 * 50 / 2
    assert servers.health.ejected(120) == {"b"}


@pytest.mark.parametrize("seed", range(5))
def test_a_flapping_server_is_trusted_less_and_less_and_again_when_it_is_calm(seed: int) -> None:
    def answers(each: str, now_s: float) -> Failure | None:
        return Failure.SERVER_ERROR if each == "b" and now_s < 200 and int(now_s) % 2 else None

    servers = Servers(seed, ["a", "b", "c"], answers)
    servers.run(400)
    assert servers.refused == []
    early = sum(now_s < 50 for now_s in servers.failed)
    late = sum(150 <= now_s < 200 for now_s in servers.failed)
    assert late < early <= 60
    assert max(servers.failed) < 200
    assert state(servers.health, "b", 400) is HealthState.WELL


@pytest.mark.parametrize("seed", range(5))
def test_all_failing_alike_are_not_all_held_back(seed: int) -> None:
    servers = Servers(seed, ["a", "b", "c"], lambda _each, now_s: Failure.SERVER_ERROR if now_s < 30 else None)
    servers.run(120)
    assert servers.refused == []
    assert all(servers.sent[each] > 1_000 for each in "abc")


@given(st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_day(seed: int) -> None:
    def failures() -> list[float]:
        servers = Servers(seed, ["a", "b"], lambda each, now_s: Failure.LOST if each == "a" and now_s < 10 else None)
        servers.run(20, a_second=10)
        return servers.failed

    assert failures() == failures()
