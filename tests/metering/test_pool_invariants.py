"""Whatever several holders do to one pool in whatever order, the books of it add up."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.metering.limit_windows import Window, window_start_ms
from galerne.metering.limits import PoolSpec
from galerne.metering.pool_laws import Taken
from galerne.metering.pools import (
    reclaim_script,
    renew_script,
    spend_script,
)
from tests.metering.lease_simulation import Books
from tests.metering.limit_fleet import HOUR_MS, MINUTE_MS, NOON_MS, pool, take
from tests.metering.takes import give_back_script, take_script

AMOUNT = 100
Step = tuple[str, int, int]  # what is done, by which holder or how late, and how much

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "spend", "back", "reclaim", "renew", "wait", "correct"]),
        st.integers(0, 2),
        st.integers(1, 60),
    ),
    max_size=40,
)


@dataclass
class Held:
    amount: int = 0
    spent: int = 0
    expires_at_ms: int = 0


@dataclass
class Walk:
    """One pool, and what it must say, computed the slow way: from every lease of the window that is on."""

    spec: PoolSpec
    books: Books = field(default_factory=Books)
    now_ms: int = NOON_MS
    start_ms: int = 0
    ended: int = 0  # spent by leases that are over
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    newest: dict[int, str] = field(default_factory=dict[int, str])  # holder -> its lease

    def step(self, what: str, who: int, much: int) -> None:
        getattr(self, what)(who, much)
        assert self.taken <= AMOUNT
        assert [taken for (taken,) in self.books.rows("SELECT taken FROM limit_pools")] in ([], [self.taken])

    @property
    def taken(self) -> int:
        return self.ended + sum(lease.amount for lease in self.held.values())

    def take(self, who: int, much: int) -> None:
        wish = take(self.spec, much, f"h{who}", least=1, expires_at_ms=self.now_ms + MINUTE_MS)
        got = self.books.run(take_script(wish, self.now_ms))
        if not isinstance(got, Taken):
            assert self.taken == AMOUNT
            return
        if got.window_start_ms != self.start_ms:
            self.start_ms, self.ended, self.held = got.window_start_ms, 0, {}
        self.newest[who] = str(got.lease_id)
        lease = self.held.setdefault(str(got.lease_id), Held())
        lease.amount += got.amount
        lease.expires_at_ms = max(lease.expires_at_ms, wish.expires_at_ms)
        assert 1 <= got.amount <= much
        assert got.lease_amount == lease.amount

    def correct(self, who: int, much: int) -> None:
        wish = take(
            self.spec,
            0,
            f"h{who}",
            correction=-much,
            window_start_ms=self.start_ms,
            expires_at_ms=self.now_ms + MINUTE_MS,
        )
        self.books.run(take_script(wish, self.now_ms))
        lease = self.held.get(self.newest.get(who, ""))
        if lease is not None and self._same_window():
            lease.amount -= min(much, lease.amount - lease.spent)
            lease.expires_at_ms = max(lease.expires_at_ms, wish.expires_at_ms)

    def spend(self, who: int, much: int) -> None:
        lease_id = self.newest.get(who, "")
        lease = self.held.get(lease_id)
        amount = much if lease is None else min(much, lease.amount - lease.spent)
        self.books.run(spend_script({lease_id: amount}))
        if lease is not None:
            lease.spent += amount

    def renew(self, who: int, much: int) -> None:
        lease_id = self.newest.get(who, "")
        until_ms = self.now_ms + much * MINUTE_MS
        if self.books.run(renew_script([lease_id], until_ms)) and lease_id in self.held:
            self.held[lease_id].expires_at_ms = until_ms

    def back(self, who: int, _much: int) -> None:
        lease_id = self.newest.get(who, "")
        self.books.run(give_back_script([lease_id]))
        self._end(lease_id)

    def reclaim(self, _who: int, _much: int) -> None:
        self.books.run(reclaim_script(self.now_ms))
        for lease_id in [name for name, lease in self.held.items() if lease.expires_at_ms <= self.now_ms]:
            self._end(lease_id)

    def wait(self, who: int, much: int) -> None:
        self.now_ms += much * (1000, MINUTE_MS, HOUR_MS)[who]

    def _end(self, lease_id: str) -> None:
        lease = self.held.pop(lease_id, None)
        self.ended += 0 if lease is None else lease.spent

    def _same_window(self) -> bool:
        window = self.spec.window
        return window == "none" or window_start_ms(window, self.now_ms, self.start_ms) == self.start_ms


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["5h", "day", "month", "none"]), STEPS)
def test_a_pool_is_what_leases_hold_and_what_was_spent_and_never_more_than_its_amount(
    window: Window, steps: list[Step]
) -> None:
    walk = Walk(pool(AMOUNT, window))
    try:
        for step in steps:
            walk.step(*step)
    finally:
        walk.books.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 120)), max_size=60))
def test_a_bucket_hands_out_no_more_than_its_amount_and_the_refill(takes: list[tuple[int, int]]) -> None:
    books, now_ms, got = Books(), NOON_MS, 0
    try:
        for pause_ms, much in takes:
            now_ms += pause_ms
            answer = books.run(take_script(take(pool(AMOUNT, "minute"), much, least=1), now_ms))
            if isinstance(answer, Taken):
                got += answer.amount
                assert got <= AMOUNT + (now_ms - NOON_MS) * AMOUNT // MINUTE_MS + 20  # one oversized request may pass
    finally:
        books.close()
