"""Lots in lockstep with naive ones: random grants, spend, expiries, voids and corrections, burned whenever."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor, ActorKind
from galerne.kernel import Conflict, Database, ManualClock, Script, run_in_session
from galerne.ledger import (
    AccountKind,
    Correction,
    Grant,
    LotChange,
    LotKind,
    NewHold,
    Posting,
    Settlement,
    allocate_script,
    correct_charge,
    customer_account,
    grant_credit,
    hold_script,
    house_account,
    lots_of,
    open_account_script,
    post_script,
    release_script,
    settle_script,
    sweep_credits,
    void_lot,
)
from tests.ledger.ledgers import NOON, problems
from tests.ledger.naive_lots import NaiveHold, NaiveLot, NaiveLots

_examples = itertools.count()
amounts = st.integers(1, 30)
hours = st.integers(1, 12)


class Lockstep(RuleBasedStateMachine):
    def __init__(self, runner: asyncio.Runner, database: Database) -> None:
        super().__init__()
        self.runner, self.database, self.naive = runner, database, NaiveLots()
        organisation = f"org-{next(_examples)}"
        self.actor = Actor(ActorKind.SYSTEM, "system", organisation, None)
        self.account = customer_account(AccountKind.PREPAID, organisation, "EUR")
        self.cash, self.revenue = (
            house_account(kind, "EUR") for kind in (AccountKind.CASH_CLEARING, AccountKind.REVENUE)
        )
        self.clock, self.numbers = ManualClock(NOON), itertools.count()
        for account in (self.account, self.cash, self.revenue):
            self.script(open_account_script(account, NOON))

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def script(self, script: Script[Any]) -> Any:
        return self.use(lambda session: run_in_session(session, script))

    def use(self, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        async def transact() -> Any:
            async with self.database.transaction() as session:
                return await work(session)

        return self.runner.run(transact())

    def name(self, kind: str) -> str:
        return f"{self.actor.organisation_id}:{kind}{next(self.numbers)}"

    @rule(
        amount=amounts,
        promotional=st.booleans(),
        priority=st.sampled_from([10, 50]),
        later=st.sampled_from([0, 0, 0, 3]),
        lasts=st.none() | hours,
    )
    def grant(self, amount: int, promotional: bool, priority: int, later: int, lasts: int | None) -> None:
        name, effective = self.name("g"), self.now + timedelta(hours=later)
        expires = None if lasts is None else effective + timedelta(hours=lasts)
        kind = LotKind.PROMOTIONAL if promotional else LotKind.PAID
        terms = {"kind": kind, "priority": priority, "expires_at": expires, "effective_at": effective}
        new = Grant(id=name, amount_nano=amount, currency="EUR", reason="x", **cast(Any, terms))
        assert self.use(lambda session: grant_credit(session, self.actor, new, self.clock)) is True
        assert self.use(lambda session: grant_credit(session, self.actor, new, self.clock)) is False
        self.naive.grant(NaiveLot(name, promotional, priority, effective, expires, amount), self.now)

    @rule(amount=amounts)
    def post_without_a_lot(self, amount: int) -> None:
        name = self.name("p")
        assert self.script(post_script(Posting(name, self.cash.id, self.account.id, amount, self.now, "x")))
        self.naive.grant(NaiveLot(name, False, 50, self.now, None, amount), self.now)

    @precondition(lambda self: self.naive.available)
    @rule(data=st.data())
    def spend_at_once(self, data: st.DataObject) -> None:
        name, amount = self.name("s"), data.draw(st.integers(1, self.naive.available))
        assert self.script(post_script(Posting(name, self.account.id, self.revenue.id, amount, self.now, "x")))
        self.naive.burn(name, amount, self.now)

    @precondition(lambda self: self.naive.available)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        name, amount = self.name("h"), data.draw(st.integers(1, self.naive.available))
        self.script(hold_script(NewHold(name, self.account.id, self.revenue.id, amount, amount, "g", 0, self.now)))
        self.naive.holds[name] = NaiveHold(name, self.now, amount)

    @precondition(lambda self: self.naive.holds)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        hold = self.naive.holds[data.draw(st.sampled_from(sorted(self.naive.holds)))]
        batch = data.draw(st.lists(st.integers(1, hold.left), min_size=1, max_size=3))
        owed: list[Settlement] = []
        for amount in batch:
            if amount <= hold.left:
                name = self.name("c")
                owed.append(Settlement(name, hold.id, self.account.id, self.revenue.id, amount, self.now))
                self.naive.burn(name, amount, hold.at)
                hold.left -= amount
        self.script(settle_script(owed))
        if not hold.left:
            del self.naive.holds[hold.id]

    @precondition(lambda self: self.naive.holds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.naive.holds)))
        self.script(release_script([name], self.now))
        del self.naive.holds[name]

    @rule(passed=hours)
    def time_passes(self, passed: int) -> None:
        self.clock.current += timedelta(hours=passed)

    @rule(most=st.integers(1, 4))
    def allocate(self, most: int) -> None:
        self.script(allocate_script(self.account.id, most))

    @rule()
    def sweep(self) -> None:
        lapses = self.use(lambda session: sweep_credits(session, self.account.id, self.clock))
        booked = {each.lot_id: each.nano for each in lapses if each.kind is not LotChange.GRANT}
        assert booked == self.naive.sweep(self.now)

    @precondition(lambda self: self.naive.lots)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        lot = self.naive.lots[data.draw(st.sampled_from(sorted(self.naive.lots)))]
        if lot.id not in self.lots():
            return  # it has not been made by an allocator yet
        if lot.came and not lot.left and not lot.voided:
            with pytest.raises(Conflict, match="Nothing is left"):
                self.use(lambda session: void_lot(session, self.actor, lot.id, "x", self.clock))
            return
        lapses = self.use(lambda session: void_lot(session, self.actor, lot.id, "x", self.clock))
        lot.voided = True
        booked = {each.lot_id: each.nano for each in lapses if each.kind is not LotChange.GRANT}
        assert booked == self.naive.sweep(self.now)

    @precondition(lambda self: self.naive.charges)
    @rule(data=st.data(), amount=amounts)
    def correct(self, data: st.DataObject, amount: int) -> None:
        charge = data.draw(st.sampled_from(sorted(self.naive.charges)))
        new = Correction(id=self.name("k"), charge_id=charge, amount_nano=amount, reason="x")
        if not self.naive.correct(new.id, charge, amount, self.now):
            with pytest.raises(Conflict, match="can still be given back"):
                self.use(lambda session: correct_charge(session, self.actor, new, self.clock))
            return
        assert self.use(lambda session: correct_charge(session, self.actor, new, self.clock)) is True
        assert self.use(lambda session: correct_charge(session, self.actor, new, self.clock)) is False

    def lots(self) -> dict[str, int]:
        found = self.use(lambda session: lots_of(session, self.actor.organisation_id))
        return {each.id: each.left_nano for each in found}

    def teardown(self) -> None:
        assert self.runner.run(problems(self.database)) == []
        while self.script(allocate_script(self.account.id, 7)).more:
            pass
        assert self.lots() == {each.id: each.left for each in self.naive.lots.values()}
        assert self.runner.run(problems(self.database)) == []


@pytest.mark.timeout(120)  # hundreds of commits, and Hypothesis shrinks what it finds
def test_lots_do_what_naive_ones_do(database_url: str) -> None:
    with asyncio.Runner() as runner:
        database = Database(database_url)
        run_state_machine_as_test(
            cast(Any, lambda: Lockstep(runner, database)),
            settings=settings(max_examples=15, stateful_step_count=30, deadline=None, print_blob=True),
        )
        runner.run(database.close())
