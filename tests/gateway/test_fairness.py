"""The waiting queue's rules: who gets a place, who loses it, who is next, and that nobody is lost."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.gateway.drain import Drain
from galerne.gateway.fairness import LOWER_TIER_TURN, TIERS, FairQueue, Ticket, Tier, work
from galerne.gateway.ranking import Ranking
from galerne.kernel import InvariantViolated, RateLimited

NEVER_S = 1e9
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "pop", "remove", "expire", "correct"]),
        st.integers(0, 999),
        st.integers(0, 3),
    ),
    max_size=120,
)


def ticket(
    number: int = 0, tenant: str = "t", tier: Tier = "standard", work: int = 100, deadline_s: float = NEVER_S
) -> Ticket:
    return Ticket(
        id=f"{tenant}-{tier}-{number}",
        tenant=tenant,
        weight=1,
        tier=tier,
        work=work,
        arrived_s=0.0,
        deadline_s=deadline_s,
    )


def filled(queue: FairQueue, *groups: tuple[str, Tier, int]) -> FairQueue:
    for tenant, tier, count in groups:
        for number in range(count):
            assert queue.push(ticket(number, tenant, tier), 0.0) is None
    return queue


def popped(queue: FairQueue, now_s: float = 0.0) -> list[Ticket]:
    out: list[Ticket] = []
    while (found := queue.pop(now_s)) is not None:
        out.append(found)
    return out


class Ledger:
    """A queue and, beside it, what must be true of it."""

    def __init__(self, capacity: int, share: float) -> None:
        self.queue = FairQueue(capacity, share, remembered=2)
        self.waiting: dict[str, Ticket] = {}
        self.in_flight: list[Ticket] = []
        self.now_s = 0.0
        self.ends: Counter[str] = Counter()

    def push(self, number: int, choice: int) -> None:
        new = Ticket(
            id=f"r{len(self.ends) + len(self.waiting)}",
            tenant=f"t{number % 4}",
            weight=1 + choice,
            tier=TIERS[number % 3],
            work=number,
            arrived_s=self.now_s,
            deadline_s=self.now_s + number % 17,
        )
        try:
            displaced = self.queue.push(new, self.now_s)
        except RateLimited:
            return
        self.waiting[new.id] = new
        if displaced is not None:
            assert TIERS.index(displaced.tier) >= TIERS.index(new.tier)
            self.end(displaced)

    def pop(self, number: int, choice: int) -> None:
        found = self.queue.pop(self.now_s)
        if found is None:
            assert all(one.deadline_s <= self.now_s for one in self.waiting.values()), "no place is idle in vain"
            return
        alive = (one for one in self.waiting.values() if one.deadline_s > self.now_s)
        same = (one for one in alive if (one.tenant, one.tier) == (found.tenant, found.tier))
        assert next(same) is found, "first come, first served within a tenant; no deadline is missed"
        self.in_flight.append(found)
        self.end(found)

    def remove(self, number: int, choice: int) -> None:
        if self.waiting:
            chosen = list(self.waiting.values())[number % len(self.waiting)]
            if self.queue.remove(chosen.id) is not None:
                self.end(chosen)

    def expire(self, number: int, choice: int) -> None:
        for late in self.queue.expire(self.now_s):
            assert late.deadline_s <= self.now_s
            self.end(late)

    def correct(self, number: int, choice: int) -> None:
        if self.in_flight:
            self.queue.correct(self.in_flight.pop(number % len(self.in_flight)), number * choice)

    def end(self, found: Ticket) -> None:
        del self.waiting[found.id]
        self.ends[found.id] += 1


@given(steps=STEPS, capacity=st.integers(1, 12), share=st.sampled_from([0.1, 0.3, 0.5, 1.0]))
@settings(max_examples=150, deadline=None)
def test_every_ticket_ends_exactly_once_and_the_bounds_hold(
    steps: list[tuple[str, int, int]], capacity: int, share: float
) -> None:
    ledger = Ledger(capacity, share)
    for step, number, choice in steps:
        ledger.now_s += choice
        getattr(ledger, step)(number, choice)
        assert len(ledger.waiting) <= capacity
        assert sum(ledger.queue.waiting(tier) for tier in TIERS) == len(ledger.queue) <= len(ledger.waiting)
        assert 1 <= ledger.queue.retry_after_s(ledger.now_s) <= 60
    ledger.expire(0, 0)
    while ledger.waiting:
        ledger.pop(0, 0)
    assert set(ledger.ends.values()) <= {1}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-50, 50), st.booleans()), max_size=300))
def test_a_ranking_gives_the_least_of_what_is_there_and_stays_small(steps: list[tuple[int, int, bool]]) -> None:
    ranking, model = Ranking[int](), dict[int, int]()
    for key, rank, stays in steps:
        if stays:
            ranking.place(key, rank)
            model[key] = rank
        else:
            ranking.drop(key)
            model.pop(key, None)
        first = ranking.first()
        assert (first is None) == (not model)
        assert first is None or model[first] == min(model.values())
        assert len(ranking._heap) <= 2 * len(model) + 64


def test_a_token_written_counts_as_two_that_are_read() -> None:
    assert work(1_000, 10) == 1_020


def test_tenants_that_ask_for_the_same_take_turns() -> None:
    queue = filled(FairQueue(100, 1.0), ("a", "standard", 4), ("b", "standard", 2))
    assert [one.tenant for one in popped(queue)] == ["a", "b", "a", "b", "a", "a"]


def test_a_lone_tenant_may_fill_the_queue_and_makes_room_when_others_come() -> None:
    queue = filled(FairQueue(4, 0.5), ("a", "standard", 4))
    with pytest.raises(RateLimited):
        queue.push(ticket(4, "a"), 0.0)
    assert queue.push(ticket(0, "b"), 0.0) == ticket(3, "a")
    assert queue.push(ticket(1, "b"), 0.0) == ticket(2, "a")
    for full in ("b", "c"):
        with pytest.raises(RateLimited):
            queue.push(ticket(2, full), 0.0)


def test_once_others_wait_a_tenant_at_its_share_is_refused_though_there_is_room() -> None:
    queue = filled(FairQueue(10, 0.2), ("a", "standard", 2), ("b", "standard", 1))
    with pytest.raises(RateLimited):
        queue.push(ticket(2, "a"), 0.0)
    assert queue.push(ticket(0, "c"), 0.0) is None


def test_a_tenant_at_its_share_makes_room_among_its_own_lower_tiers() -> None:
    queue = filled(FairQueue(10, 0.2), ("a", "batch", 2), ("b", "batch", 1))
    assert queue.push(ticket(0, "a", "priority"), 0.0) == ticket(1, "a", "batch")


def test_a_higher_tier_displaces_the_newest_of_the_lowest_and_a_lower_one_nobody() -> None:
    queue = filled(FairQueue(4, 1.0), ("a", "standard", 1), ("b", "batch", 2), ("c", "standard", 1))
    assert queue.push(ticket(0, "d"), 0.0) == ticket(1, "b", "batch")
    assert queue.push(ticket(0, "e", "priority"), 0.0) == ticket(0, "b", "batch")
    with pytest.raises(RateLimited):
        queue.push(ticket(0, "f", "standard"), 0.0)
    assert queue.push(ticket(1, "f", "priority"), 0.0) == ticket(0, "d")
    with pytest.raises(RateLimited):
        queue.push(ticket(2, "f", "batch"), 0.0)


def test_a_crowd_of_a_higher_tier_is_not_cut_for_a_lower_one() -> None:
    queue = filled(FairQueue(3, 0.4), ("a", "priority", 3))
    with pytest.raises(RateLimited):
        queue.push(ticket(0, "b", "standard"), 0.0)
    assert queue.push(ticket(0, "b", "priority"), 0.0) == ticket(2, "a", "priority")


@pytest.mark.parametrize("seed", range(5))
def test_each_tier_that_waits_throughout_has_one_of_sixteen_turns(seed: int) -> None:
    random = Random(seed)
    queue = filled(FairQueue(3_000, 1.0), *((tier, tier, 500) for tier in TIERS))
    since = dict.fromkeys(TIERS, 0)
    for number in range(1_000):
        if random.random() < 0.9:
            queue.push(ticket(1_000 + number, "priority", "priority"), 0.0)
        found = queue.pop(0.0)
        assert found is not None
        since = {tier: 0 if tier == found.tier or not queue.waiting(tier) else since[tier] + 1 for tier in TIERS}
        assert max(since.values()) < LOWER_TIER_TURN, seed


def test_a_removed_ticket_is_never_popped_and_costs_its_tenant_nothing() -> None:
    queue = filled(FairQueue(10, 1.0), ("a", "standard", 2), ("b", "standard", 1))
    assert queue.remove("a-standard-0") == ticket(0, "a")
    assert queue.remove("a-standard-0") is None
    assert [one.id for one in popped(queue)] == ["a-standard-1", "b-standard-0"]


def test_a_ticket_at_its_deadline_is_told_and_not_started() -> None:
    queue = FairQueue(2, 1.0)
    queue.push(ticket(0, deadline_s=5.0), 0.0)
    queue.push(ticket(1, deadline_s=6.0), 0.0)
    assert queue.next_deadline_s == 5.0
    assert queue.expire(4.9) == []
    assert queue.pop(5.0) == ticket(1, deadline_s=6.0)
    assert queue.expire(5.0) == [ticket(0, deadline_s=5.0)]
    assert queue.expire(9.0) == []
    assert queue.next_deadline_s is None


def test_what_expired_takes_up_room_until_it_is_fetched() -> None:
    queue = FairQueue(1, 1.0)
    queue.push(ticket(0, deadline_s=5.0), 0.0)
    with pytest.raises(RateLimited):
        queue.push(ticket(1), 6.0)
    assert len(queue.expire(6.0)) == 1
    assert queue.push(ticket(1), 6.0) is None


def test_a_request_that_never_ran_costs_nothing() -> None:
    queue = filled(FairQueue(10, 1.0), ("a", "standard", 3), ("b", "standard", 3))
    first = queue.pop(0.0)
    assert first is not None
    queue.correct(first, 0)
    rest = [one.tenant for one in popped(queue)]
    assert rest[:2] in (["b", "a"], ["a", "b"])
    with pytest.raises(InvariantViolated):
        FairQueue(10, 1.0).correct(first, 0)


def test_an_estimate_given_back_after_idling_leaves_no_credit() -> None:
    queue = FairQueue(100, 1.0)
    queue.push(ticket(0, "idle", work=10_000), 0.0)
    reserved = queue.pop(0.0)
    assert reserved is not None
    for number in range(50):
        queue.push(ticket(number, "busy", work=1_000), 0.0)
        found = queue.pop(0.0)
        assert found is not None
        queue.correct(found, 1_000)
    filled(queue, ("idle", "standard", 10), ("busy", "batch", 0))
    for number in range(100, 110):
        queue.push(ticket(number, "busy", work=100), 0.0)
    queue.correct(reserved, 10)
    assert Counter(one.tenant for one in popped(queue)[:10]) == {"idle": 5, "busy": 5}


def test_a_newcomer_does_not_wait_for_what_others_merely_reserved() -> None:
    queue = FairQueue(100, 1.0)
    for number in range(20):
        queue.push(ticket(number, "flood", work=50_000), 0.0)
    for _ in range(8):
        queue.pop(0.0)
    queue.push(ticket(0, "small"), 0.0)
    assert queue.position("small-standard-0") == 2
    following = queue.pop(0.0)
    assert following is not None
    assert following.tenant == "small"


def heavy_and_light(remembered: int) -> tuple[FairQueue, Ticket, Ticket]:
    """A queue in which `light` has ten requests waiting, and the large ones of two others, which are in flight."""
    queue = FairQueue(100, 1.0, remembered)
    queue.push(ticket(0, "heavy", work=2_000), 0.0)
    queue.push(ticket(0, "heavier", work=5_000), 0.0)
    filled(queue, ("light", "standard", 10))
    heavy, heavier = queue.pop(0.0), queue.pop(0.0)
    assert heavy is not None
    assert heavier is not None
    return queue, heavy, heavier


def test_who_was_served_more_still_owes_it_after_a_pause() -> None:
    queue, heavy, heavier = heavy_and_light(remembered=2)
    queue.correct(heavy, 650)
    queue.correct(heavier, 5_000)
    queue.push(ticket(1, "heavy"), 0.0)
    queue.push(ticket(1, "newcomer"), 0.0)
    order = [one.tenant for one in popped(queue)]
    assert order[:2] == ["light", "newcomer"]
    assert order.index("heavy") == 8, "after seven of light, of 100 each, and the newcomer's one"


def test_being_forgotten_gives_no_credit() -> None:
    queue, heavy, heavier = heavy_and_light(remembered=0)
    queue.correct(heavy, 2_000)
    queue.correct(heavier, 5_000)
    queue.push(ticket(1, "heavier"), 0.0)
    assert [one.tenant for one in popped(queue)] == ["light"] * 10 + ["heavier"]


def test_a_tenant_that_waits_again_is_not_forgotten_for_one_that_goes() -> None:
    queue, heavy, heavier = heavy_and_light(remembered=1)
    queue.correct(heavy, 2_000)
    queue.push(ticket(1, "heavy"), 0.0)
    queue.correct(heavier, 5_000)
    assert [one.tenant for one in popped(queue)] == ["light"] * 10 + ["heavy"]


def test_a_position_counts_higher_tiers_whole_and_a_flood_only_in_turn() -> None:
    queue = filled(FairQueue(100, 1.0), ("flood", "standard", 50), ("small", "standard", 2), ("urgent", "priority", 3))
    assert queue.position("urgent-priority-0") == 1
    assert queue.position("flood-standard-0") == 3 + 2
    assert queue.position("small-standard-1") == 3 + 4
    assert queue.position("gone") is None


def test_a_weight_below_one_is_a_defect() -> None:
    with pytest.raises(InvariantViolated):
        FairQueue(1, 1.0).push(replace(ticket(), weight=0), 0.0)


def test_whoever_is_refused_hears_when_the_queue_will_have_drained() -> None:
    queue = filled(FairQueue(1_000, 1.0), ("a", "standard", 150))
    assert queue.retry_after_s(0.0) == 60, "nothing measured yet"
    for number in range(50):
        queue.pop(number / 5)
    assert queue.retry_after_s(10.0) == pytest.approx(20, rel=0.02)
    assert queue.retry_after_s(25.0) == pytest.approx(50, rel=0.02), "a stall shows"
    assert queue.retry_after_s(1_000.0) == 60
    popped(queue, 10.0)
    assert queue.retry_after_s(10.0) == 1


def test_a_new_rush_starts_from_the_rate_of_the_last_one() -> None:
    drain = Drain()
    drain.begin(0.0)
    for number in range(1, 21):
        drain.dispatched(number / 2)
    drain.begin(1_000.0)
    assert drain.seconds_for(10, 1_000.0) == pytest.approx(5)
    drain.dispatched(1_008.0)
    assert drain.seconds_for(9, 1_008.0) == pytest.approx(12)
