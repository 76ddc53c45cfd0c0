"""The machine's rules of credit: granted, held, given back, expired, voided, corrected, burned."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from galerne.kernel import Conflict, ManualClock
from galerne.ledger import (
    Correction,
    Grant,
    LotChange,
    LotKind,
    NewHold,
    Posting,
    Refused,
    allocate_script,
    correct_charge,
    expired_script,
    grant_credit,
    hold_script,
    lots_of,
    post_script,
    release_script,
    sweep_credits,
    void_lot,
)
from tests.billing.lockstep.naive_bills import NaiveBills
from tests.billing.lockstep.naive_credit import FundedLot, NaiveCredit, NaiveHold
from tests.billing.lockstep.world import Services, World

EURO = 10**9
CASH, PROMO, REVENUE, BREAKAGE = (f"{kind}:EUR" for kind in ("cash_clearing", "promo_cost", "revenue", "breakage"))
amounts = st.one_of(st.integers(1, 2000), st.integers(1, 60 * EURO))
hours = st.integers(1, 72)
grants = st.tuples(amounts, st.booleans(), st.sampled_from([10, 50]), st.sampled_from([0, 0, 0, 30]), st.none() | hours)


class CreditRules(RuleBasedStateMachine):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.services = world, Services(world)
        self.books: Counter[str] = Counter()
        self.credit = NaiveCredit(self.services.account, self.books)
        self.bills = NaiveBills()
        self.changed = False

    @property
    def clock(self) -> ManualClock:
        return self.services.clock

    @property
    def now(self) -> datetime:
        return self.clock.current

    def name(self, kind: str) -> str:
        return f"{kind}{next(self.services.numbers)}"

    @rule(data=st.data(), what=st.sampled_from(["grant", "grant", "post", "spend", "correct", "correct", "void"]))
    def credit_changes(self, data: st.DataObject, what: str) -> None:
        if what == "grant":
            self.grant(*data.draw(grants))
        elif what == "post":
            self.post_without_a_lot(data.draw(amounts))
        elif what == "spend" and self.credit.available:
            self.spend_without_a_hold(data.draw(st.integers(1, self.credit.available)))
        elif what == "correct" and self.credit.charges:
            charge = data.draw(st.sampled_from(sorted(self.credit.charges)))
            self.correct_a_charge(charge, data.draw(st.none() | amounts))
        elif what == "void" and self.credit.lots:
            self.void_a_lot(data.draw(st.sampled_from(sorted(self.credit.lots))))

    @rule(data=st.data(), passed=st.one_of(hours, hours, st.integers(72, 500)))
    def time_passes(self, data: st.DataObject, passed: int) -> None:
        self.clock.current += timedelta(hours=passed)
        what = data.draw(st.sampled_from(["sweep", "recover", "recover", "release", "release", 1, 2, 100]))
        if what == "sweep":
            self.sweep()
        elif what == "recover":
            self.recover_expired_holds()
        elif what == "release" and self.credit.holds:
            self.release(data.draw(st.sampled_from(sorted(self.credit.holds))))
        elif isinstance(what, int) and not self.services.script(allocate_script(self.services.account, what)).more:
            self.lots_are_the_naive_ones()

    def grant(self, amount: int, promotional: bool, priority: int, later: int, lasts: int | None) -> None:
        name, effective = self.name("g"), self.now + timedelta(hours=later)
        expires = None if lasts is None else effective + timedelta(hours=lasts)
        kind = LotKind.PROMOTIONAL if promotional else LotKind.PAID
        terms: dict[str, Any] = {"priority": priority, "expires_at": expires, "effective_at": effective}
        new = Grant(id=name, amount_nano=amount, currency="EUR", reason="x", kind=kind, **terms)
        actor = self.services.operator
        for is_new in (True, False):
            assert self.services.act(lambda session: grant_credit(session, actor, new, self.clock)) is is_new
        funding = PROMO if promotional else CASH
        self.credit.grant(FundedLot(name, promotional, priority, effective, expires, amount, funding=funding), self.now)

    def post_without_a_lot(self, amount: int) -> None:
        name = self.name("p")
        assert self.services.script(post_script(Posting(name, CASH, self.services.account, amount, self.now, "x")))
        self.credit.grant(FundedLot(name, False, 50, self.now, None, amount, funding=CASH), self.now)

    def spend_without_a_hold(self, amount: int) -> None:
        name = self.name("s")
        assert self.services.script(post_script(Posting(name, self.services.account, REVENUE, amount, self.now, "x")))
        self.credit.charge(name, REVENUE, amount, self.now)

    def held(self, amount: int, lasts: int) -> str | None:
        name, expires = self.name("h"), self.now + timedelta(hours=lasts)
        sides = (self.services.account, REVENUE)
        new = NewHold(name, *sides, amount, amount, "gateway", int(expires.timestamp() * 1000), self.now)
        answer = self.services.script(hold_script(new))
        if self.credit.available < amount:
            assert answer == Refused(self.credit.available)
            return None
        assert answer.amount_nano == amount
        self.credit.holds[name] = NaiveHold(name, self.now, amount, expires)
        return name

    def release(self, name: str) -> None:
        back = self.services.script(release_script([name], self.now))
        assert back == {name: self.credit.holds.pop(name).left}

    def recover_expired_holds(self) -> None:
        def recovery() -> Any:
            found = yield from expired_script(int(self.now.timestamp() * 1000), 1000)
            return (yield from release_script([each.id for each in found], self.now))

        over = {name: each.left for name, each in self.credit.holds.items() if each.expires <= self.now}
        assert self.services.script(recovery()) == over
        for name in over:
            del self.credit.holds[name]

    def sweep(self) -> None:
        lapses = self.services.act(lambda session: sweep_credits(session, self.services.account, self.clock))
        booked = {each.lot_id: each.nano for each in lapses if each.kind is not LotChange.GRANT}
        assert booked == self.credit.sweep(self.now, BREAKAGE)

    def void_a_lot(self, name: str) -> None:
        lot = self.credit.lots[name]
        if lot.id not in self.lots():
            return  # it has not been made by an allocator yet
        actor = self.services.operator
        if lot.came and not lot.left and not lot.voided:
            with pytest.raises(Conflict, match="Nothing is left"):
                self.services.act(lambda session: void_lot(session, actor, lot.id, "x", self.clock))
            return
        lapses = self.services.act(lambda session: void_lot(session, actor, lot.id, "x", self.clock))
        lot.voided = True
        booked = {each.lot_id: each.nano for each in lapses if each.kind is not LotChange.GRANT}
        assert booked == self.credit.sweep(self.now, BREAKAGE)

    def correct_a_charge(self, charge: str, amount: int | None) -> None:
        left = sum(part for _, part in self.credit.charges[charge])
        new = Correction(id=self.name("k"), charge_id=charge, amount_nano=amount or left or 1, reason="x")
        actor = self.services.operator
        if not self.credit.give_back(new.id, (charge, REVENUE), new.amount_nano, self.now):
            with pytest.raises(Conflict, match="can still be given back"):
                self.services.act(lambda session: correct_charge(session, actor, new, self.clock))
            return
        for is_new in (True, False):
            assert self.services.act(lambda session: correct_charge(session, actor, new, self.clock)) is is_new

    def lots(self) -> dict[str, int]:
        found = self.services.look(lambda session: lots_of(session, self.world.prepaid))
        return {each.id: each.left_nano for each in found}

    def lots_are_the_naive_ones(self) -> None:
        assert self.lots() == {each.id: each.left for each in self.credit.lots.values()}
