"""What tenants get of full replicas, over seeded simulations; the seed is in each test's name."""

from itertools import pairwise
from statistics import quantiles

import pytest

from galerne.gateway.fairness import LOWER_TIER_TURN, FairQueue, Ticket, work
from tests.gateway.fair_simulation import Demand, Simulation

pytestmark = pytest.mark.parametrize("seed", [1, 2, 3, 20_260_930])
RUN_S = 300.0


class FirstComeFirstServed(FairQueue):
    def __init__(self) -> None:
        super().__init__(1_000, 1.0)
        self._line: list[Ticket] = []

    def push(self, ticket: Ticket, now_s: float) -> None:
        self._line.append(ticket)

    def pop(self, now_s: float) -> Ticket | None:
        return self._line.pop(0) if self._line else None

    def correct(self, ticket: Ticket, real_work: int) -> None:
        pass


def ratio(run: Simulation, one: str, other: str, from_s: float = 0.0) -> float:
    return run.work_of(one, from_s) / run.work_of(other, from_s)


def p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


def test_ten_times_the_requests_get_no_more_work(seed: int) -> None:
    demands = [Demand(tenant="few", outstanding=20), Demand(tenant="many", outstanding=200)]
    assert ratio(Simulation(demands, seed).run(RUN_S), "many", "few") == pytest.approx(1, abs=0.03)
    unfair = Simulation(demands, seed, FirstComeFirstServed()).run(RUN_S)
    assert ratio(unfair, "many", "few") > 5, "the simulation would show it"


def test_requests_ten_times_as_large_get_no_more_work(seed: int) -> None:
    large = Demand(tenant="large", outstanding=20, input_tokens=(500, 1500), output_tokens=(500, 1500))
    demands = [Demand(tenant="small", outstanding=20), large]
    assert ratio(Simulation(demands, seed).run(RUN_S * 3), "large", "small") == pytest.approx(1, abs=0.05)
    unfair = Simulation(demands, seed, FirstComeFirstServed()).run(RUN_S)
    assert ratio(unfair, "large", "small") > 5, "the simulation would show it"


def test_weights_of_one_and_three_get_one_and_three(seed: int) -> None:
    demands = [Demand(tenant="pro", weight=3, outstanding=40), Demand(tenant="free", outstanding=40)]
    assert ratio(Simulation(demands, seed).run(RUN_S), "pro", "free") == pytest.approx(3, rel=0.03)


def test_replicas_of_different_speed_change_no_share(seed: int) -> None:
    demands = [Demand(tenant="one", outstanding=30), Demand(tenant="other", outstanding=90)]
    run = Simulation(demands, seed, speeds=(1.0, 0.25, 3.0)).run(RUN_S)
    assert ratio(run, "one", "other") == pytest.approx(1, abs=0.03)


def test_a_small_tenant_waits_beside_a_flood_for_no_more_than_the_next_slots(seed: int) -> None:
    small = Demand(tenant="small", per_s=0.5)
    flood = Demand(tenant="flood", outstanding=900, guess=20)
    alone = Simulation([small], seed).run(RUN_S).of("small")
    beside = Simulation([small, flood], seed).run(RUN_S).of("small")
    assert p95([one.latency_s for one in beside]) <= 1.35 * p95([one.latency_s for one in alone])
    assert p95([one.waited_s for one in beside]) < 0.5, "a request takes a second, a slot is free every eighth of it"
    unfair = Simulation([small, flood], seed, FirstComeFirstServed()).run(RUN_S).of("small")
    assert p95([one.latency_s for one in unfair]) > 30, "the simulation would show it"


def test_tiers_go_in_order_and_none_starves(seed: int) -> None:
    tiers = [
        Demand(tenant="batch", tier="batch", outstanding=100),
        Demand(tenant="standard", outstanding=100),
        Demand(tenant="priority", tier="priority", outstanding=100),
    ]
    run = Simulation(tiers, seed).run(RUN_S)
    order = [one.tenant for one in run.served[8:]]
    assert order.count("priority") / len(order) == pytest.approx(1 - 2 / (LOWER_TIER_TURN - 1), abs=0.01)
    for tier in ("standard", "batch"):
        turns = [index for index, tenant in enumerate(order) if tenant == tier]
        assert max(b - a for a, b in pairwise(turns)) <= LOWER_TIER_TURN


def test_a_higher_tier_that_does_not_fill_the_replicas_leaves_the_rest_to_the_next(seed: int) -> None:
    tiers = [
        Demand(tenant="batch", tier="batch", outstanding=100),
        Demand(tenant="standard", outstanding=100, stop_s=RUN_S / 2),
        Demand(tenant="priority", tier="priority", outstanding=3),
    ]
    run = Simulation(tiers, seed).run(RUN_S)
    waits = [one.waited_s for one in run.of("priority")]
    assert p95(waits) < 0.5
    assert run.work_of("standard", 0, RUN_S / 2) > 4 * run.work_of("batch", 0, RUN_S / 2)
    assert run.work_of("batch", RUN_S / 2) > run.work_of("priority", RUN_S / 2)


def test_a_tenant_that_idled_has_nothing_saved_up(seed: int) -> None:
    late_s = RUN_S / 2
    demands = [
        Demand(tenant="steady", outstanding=50),
        Demand(tenant="returning", outstanding=50, stop_s=5),
        Demand(tenant="returning", outstanding=50, start_s=late_s),
    ]
    run = Simulation(demands, seed).run(RUN_S)
    in_flight = 8 * work(150, 150)
    for until_s in (late_s + 5, late_s + 20, RUN_S):
        gained = run.work_of("returning", late_s, until_s) - run.work_of("steady", late_s, until_s)
        assert gained <= in_flight


def test_a_tenant_that_comes_and_goes_gets_no_more_than_one_that_stays(seed: int) -> None:
    bursts = [Demand(tenant="bursts", outstanding=30, start_s=start, stop_s=start + 2) for start in range(0, 300, 6)]
    run = Simulation([Demand(tenant="stays", outstanding=30), *bursts], seed).run(RUN_S)
    assert ratio(run, "bursts", "stays") < 1.03


@pytest.mark.parametrize("guess", [0.1, 10])
def test_wrong_estimates_do_not_change_what_is_shared(seed: int, guess: float) -> None:
    demands = [Demand(tenant="wrong", outstanding=40, guess=guess), Demand(tenant="right", outstanding=40)]
    run = Simulation(demands, seed).run(RUN_S)
    assert ratio(run, "wrong", "right", from_s=20) == pytest.approx(1, abs=0.03)


def test_the_difference_between_two_backlogged_tenants_keeps_the_papers_bound(seed: int) -> None:
    demands = [
        Demand(tenant="one", outstanding=60, input_tokens=(10, 2_000), output_tokens=(1, 50)),
        Demand(tenant="other", outstanding=15, input_tokens=(10, 100), output_tokens=(1, 800), guess=3),
        Demand(tenant="third", per_s=2.0),
    ]
    run = Simulation(demands, seed).run(RUN_S)
    in_the_engines = 8 * (2_000 + 800)
    assert run.widest_gap("one", "other") <= 2 * max(work(2_000, 0), work(0, in_the_engines))


def test_two_backlogged_tenants_are_never_further_apart_than_two_requests(seed: int) -> None:
    demands = [Demand(tenant="one", outstanding=60), Demand(tenant="other", outstanding=15, output_tokens=(1, 900))]
    run = Simulation(demands, seed).run(RUN_S)
    gap, least, most = 0, 0, 0
    for served in run.served[100:]:
        gap += served.asked.work if served.tenant == "one" else -served.asked.work
        least, most = min(least, gap), max(most, gap)
    assert most - least <= 2 * work(150, 900)


def test_what_is_known_of_tenants_stays_bounded(seed: int) -> None:
    passing = [Demand(tenant=f"t{n}", outstanding=2, start_s=n * 0.1, stop_s=n * 0.1 + 1) for n in range(2_000)]
    run = Simulation(passing, seed, FairQueue(1_000, 1.0, remembered=20)).run(1_000)
    assert len(run.served) > 2_000
    assert run.queue._tiers["standard"].tenants <= 21
