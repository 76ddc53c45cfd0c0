"""What one process may hand out of a shared pool, and that several of them neither exceed it nor hoard it."""

import time

import pytest

from galerne.metering.lease_book import HELD_MS, REMEMBERED_MS, RETURN_MS, SKEW_MS, LeaseBook
from galerne.metering.limit_windows import Window
from galerne.metering.pool_laws import GAUGE_RETRY_MS, Short, Taken
from tests.metering.lease_simulation import TICK_MS, Fleet
from tests.metering.limit_fleet import HOUR_MS, MINUTE_MS, NOON_MS, pool

EXPIRES_MS = NOON_MS + MINUTE_MS


def taken(amount: int, left_after: int = 0, *, lease_amount: int | None = None, start_ms: int = NOON_MS) -> Taken:
    held = amount if lease_amount is None else lease_amount
    return Taken("rule:key-1", amount, left_after, start_ms, start_ms + HOUR_MS, EXPIRES_MS, "lease", held)


def book_with(amount: int, left_after: int = 0) -> LeaseBook:
    return LeaseBook(pool(1000), "a").accept(taken(amount, left_after), NOON_MS)


def test_a_new_book_has_nothing_and_asks_for_exactly_what_is_needed() -> None:
    book = LeaseBook(pool(1000), "a")
    assert not book.reserve(1, NOON_MS)
    assert book.wanted(3, 10, NOON_MS) == (3, 10, 10)


def test_what_was_reserved_and_not_used_can_be_reserved_again() -> None:
    book = book_with(100)
    assert book.reserve(80, NOON_MS)
    assert not book.reserve(30, NOON_MS)
    book.settle(80, 20)
    assert book.reserve(80, NOON_MS)
    assert book.unwritten == 20


def test_what_a_bucket_gets_back_goes_to_the_pool() -> None:
    book = LeaseBook(pool(1000, "minute"), "a").accept(taken(100, start_ms=0), NOON_MS)
    assert book.reserve(100, NOON_MS)
    book.settle(100, 30)
    assert not book.reserve(1, NOON_MS)
    assert book.due(NOON_MS)
    assert book.take(1, 1, NOON_MS, EXPIRES_MS).correction == -70
    book.settle(0, 5)
    assert not book.due(NOON_MS + RETURN_MS - 1)
    assert book.due(NOON_MS + RETURN_MS)


def test_while_the_database_is_away_a_bucket_hands_out_what_it_had_and_an_eighth_a_minute_that_is_told_later() -> None:
    book, late_ms = LeaseBook(pool(1000, "minute"), "a").accept(taken(100, start_ms=0), NOON_MS), NOON_MS + HELD_MS
    assert book.reserve(80, NOON_MS)
    book.settle(80, 30)
    assert not book.reserve(1, late_ms)
    assert not book.reserve_unasked(196, late_ms)
    assert book.reserve_unasked(70, late_ms)
    book.take(11, 11, late_ms, EXPIRES_MS, keep=True)
    book.failed()
    assert book.reserve_unasked(125, late_ms)
    assert not book.reserve_unasked(1, late_ms)
    assert book.reserve_unasked(125, late_ms + 60_000)
    assert not book.reserve_unasked(1, late_ms + 60_000)
    assert book.take(0, 0, late_ms + 60_000, EXPIRES_MS).correction == 250


def test_what_a_failed_take_was_to_give_back_is_at_hand_again() -> None:
    book, late_ms = LeaseBook(pool(1000, "minute"), "a").accept(taken(100, start_ms=0), NOON_MS), NOON_MS + HELD_MS
    assert book.take(0, 0, late_ms, EXPIRES_MS).correction == -100
    assert not book.reserve_unasked(126, late_ms)
    book.failed()
    assert not book.reserve_unasked(226, late_ms)
    assert book.reserve_unasked(225, late_ms)


def test_recent_use_is_asked_for_beyond_the_need() -> None:
    book = book_with(100, 900)
    assert book.reserve(60, NOON_MS)
    assert book.wanted(50, 50, NOON_MS) == (10, 10, 70)
    assert book.wanted(50, 50, NOON_MS + HELD_MS) == (10, 10, 10)


def test_an_overrun_is_counted_with_the_next_take() -> None:
    book = book_with(100)
    book.reserve(100, NOON_MS)
    book.settle(100, 130)
    assert book.due(NOON_MS)
    wish = book.take(10, 10, NOON_MS, EXPIRES_MS)
    assert (wish.correction, wish.need) == (30, 10)
    book.accept(taken(10, lease_amount=140), NOON_MS)
    assert book.available == 10


def test_an_idle_process_gives_everything_back() -> None:
    book = book_with(100, 10_000)
    book.reserve(60, NOON_MS)
    book.settle(60, 0)
    assert book.excess(NOON_MS) == 0
    assert not book.idle(NOON_MS)
    assert book.excess(NOON_MS + HELD_MS) == 100
    assert book.idle(NOON_MS + HELD_MS)


def test_little_left_means_that_nothing_is_kept() -> None:
    book = book_with(100, 15)
    book.reserve(60, NOON_MS)
    book.settle(60, 0)
    assert book.excess(NOON_MS) == 100
    assert book.take(0, 0, NOON_MS, EXPIRES_MS).correction == -100
    assert not book.reserve(1, NOON_MS)


@pytest.mark.parametrize(("window", "start_ms"), [("day", NOON_MS), ("minute", 0)])
def test_a_take_that_failed_changes_nothing(window: Window, start_ms: int) -> None:
    book = LeaseBook(pool(1000, window), "a").accept(taken(100, 15, start_ms=start_ms), NOON_MS)
    first = book.take(0, 0, NOON_MS, EXPIRES_MS)
    book.failed()
    assert first.correction == book.take(0, 0, NOON_MS, EXPIRES_MS).correction == -100


def test_a_refusal_is_remembered_until_there_may_be_enough_and_at_most_a_second() -> None:
    book = LeaseBook(pool(1000), "a")
    book.refuse(Short("rule:key-1", 5, GAUGE_RETRY_MS, None), NOON_MS)
    assert book.pause_ms(6, NOON_MS) == GAUGE_RETRY_MS
    assert book.pause_ms(5, NOON_MS) == 0
    book.refuse(Short("rule:key-1", 5, HOUR_MS, None), NOON_MS)
    assert book.pause_ms(6, NOON_MS) == REMEMBERED_MS
    assert book.pause_ms(6, NOON_MS + REMEMBERED_MS) == 0
    assert book.short(NOON_MS + 500) == Short("rule:key-1", 5, HOUR_MS - 500, None)


def test_nothing_is_drawn_on_a_lease_that_may_have_ended() -> None:
    book = book_with(100)
    assert not book.reserve(1, EXPIRES_MS - SKEW_MS)
    book.renewed(EXPIRES_MS + MINUTE_MS)
    assert book.reserve(1, EXPIRES_MS)
    book.lost()
    assert not book.reserve(1, NOON_MS)


def test_a_lease_that_was_reclaimed_counts_what_is_under_way_anew() -> None:
    book = book_with(100)
    book.reserve(40, NOON_MS)
    later = EXPIRES_MS + MINUTE_MS
    assert book.take(10, 10, later, later + MINUTE_MS).need == 10
    book.accept(taken(10), NOON_MS)  # the lease holds 10, not 50: it is a new one
    assert book.take(0, 0, NOON_MS, EXPIRES_MS).correction == 30


def test_another_window_begins_another_book_with_the_same_habits() -> None:
    old = book_with(100, 900)
    old.reserve(60, NOON_MS)
    new = old.accept(taken(20, 980, start_ms=NOON_MS + HOUR_MS), NOON_MS)
    assert new is not old
    assert new.available == 20
    assert new.wanted(50, 50, NOON_MS) == (30, 30, 90)
    old.settle(60, 10)
    assert new.available == 20


def test_a_standing_says_what_is_left_here_and_in_the_pool() -> None:
    book = book_with(100, 300)
    book.reserve(40, NOON_MS)
    assert book.standing(NOON_MS + 1000).remaining == 360
    assert book.standing(NOON_MS + 1000).reset_ms == HOUR_MS - 1000


def test_a_buckets_standing_refills() -> None:
    book = LeaseBook(pool(600, "minute"), "a").accept(taken(0, 100, start_ms=0), NOON_MS)
    assert book.standing(NOON_MS + 10_000).remaining == 200
    assert book.standing(NOON_MS + HOUR_MS).remaining == 600


@pytest.mark.parametrize("seed", range(4))
def test_processes_together_use_all_of_a_pool_and_never_more(seed: int) -> None:
    fleet = Fleet(pool(20_000), [(200, 40), (40, 200), (5, 100), (0.5, 30)], seed)
    for now_ms in range(NOON_MS, NOON_MS + 12_000, TICK_MS):
        fleet.step(now_ms)
        assert fleet.committed <= fleet.taken <= 20_000
    end_ms = fleet.drain(NOON_MS + 12_000)
    assert fleet.taken == fleet.committed
    fleet.processes[3].rate, fleet.processes[3].largest = 50, 1  # whoever is left gets all that is left
    for now_ms in range(end_ms, end_ms + 200_000, TICK_MS):
        fleet.step(now_ms)
        if fleet.committed == 20_000:
            break
    assert fleet.committed == fleet.taken == 20_000


@pytest.mark.parametrize("seed", range(4))
def test_what_dead_processes_held_is_there_again_after_their_leases(seed: int) -> None:
    fleet = Fleet(pool(200_000), [(100, 100), (100, 100), (20, 500)], seed)
    for now_ms in range(NOON_MS, NOON_MS + 4000, TICK_MS):
        fleet.step(now_ms)
        if now_ms == NOON_MS + 2000:
            fleet.kill(fleet.processes[0])
        assert fleet.committed <= fleet.taken
    start_ms = fleet.drain(NOON_MS + 4000)
    for now_ms in range(start_ms, start_ms + 10_000, 500):
        fleet.step(now_ms)
    recorded = sum(each.used for each in fleet.processes) + fleet.dead[0].used - fleet.dead[0].book.unwritten
    assert fleet.taken == recorded


@pytest.mark.parametrize("seed", range(4))
def test_a_bucket_lets_no_more_pass_than_its_amount_and_what_refills(seed: int) -> None:
    fleet = Fleet(pool(6000, "minute"), [(200, 10), (40, 50), (5, 100)], seed)
    for now_ms in range(NOON_MS, NOON_MS + 20_000, TICK_MS):
        fleet.step(now_ms)
        assert fleet.committed <= 6000 + (now_ms - NOON_MS) // 10
    assert fleet.committed >= 6000 + 1500  # of the 2,000 that were refilled


def test_a_gauge_is_never_exceeded_and_is_used_up_to_the_last_place() -> None:
    fleet = Fleet(pool(8, "none", quantity="concurrent"), [(60, 1), (60, 1), (60, 1)], 7)
    most = 0
    for now_ms in range(NOON_MS, NOON_MS + 10_000, TICK_MS):
        fleet.step(now_ms)
        at_once = sum(len(process.running) for process in fleet.processes)
        assert at_once <= 8
        most = max(most, at_once)
    assert most == 8


def test_a_flood_of_refused_requests_asks_the_database_about_once_a_second() -> None:
    fleet = Fleet(pool(50, quantity="requests"), [(500, 1), (500, 1)], 1)
    for now_ms in range(NOON_MS, NOON_MS + 10_000, TICK_MS):
        fleet.step(now_ms)
    assert sum(process.served for process in fleet.processes) == 50
    assert all(process.refused > 4000 for process in fleet.processes)
    assert sum(process.asked for process in fleet.processes) < 100


def test_reserving_and_settling_takes_less_than_two_microseconds() -> None:
    book = book_with(10**9, 10**9)
    best_s = 1.0
    for _ in range(20):
        start_s = time.thread_time()
        for _ in range(1000):
            book.reserve(1000, NOON_MS)
            book.settle(1000, 900)
        best_s = min(best_s, (time.thread_time() - start_s) / 1000)
    assert best_s < 2e-6
