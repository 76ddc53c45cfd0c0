"""The ledger in lockstep with a naive model of it: random work, repeated and conflicting ids, every answer compared."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import make_url

from galerne.kernel import Conflict, Database, Query, Script, Writer, blames_content, open_writer
from galerne.ledger import (
    AccountKind,
    Granted,
    InsufficientFunds,
    NewHold,
    Posting,
    Refused,
    Settlement,
    customer_account,
    expired_script,
    hold_script,
    house_account,
    open_account_script,
    post_script,
    release_script,
    renew_script,
    settle_script,
)
from tests.ledger.ledgers import NOON, problems

_examples = itertools.count()

amounts = st.integers(1, 60)
transfer_ids = st.integers(1, 60).map("t{}".format)
hold_ids = st.integers(1, 8).map("h{}".format)
expiries = st.integers(10, 60)
customers = st.sampled_from(["prepaid", "postpaid"])


@dataclass
class HeldNaively:
    debit: str
    amount: int
    holder: str
    expires: int
    settled: int = 0
    released: int = 0

    @property
    def left(self) -> int:
        return self.amount - self.settled - self.released


class DatabaseRefusedError(Exception):
    """What the model raises where the database itself must refuse."""


@dataclass
class NaiveLedger:
    limits: dict[str, int] = field(default_factory=lambda: {"prepaid": 0, "postpaid": 40})
    transfers: dict[str, tuple[object, ...]] = field(default_factory=dict[str, tuple[object, ...]])
    holds: dict[str, HeldNaively] = field(default_factory=dict[str, HeldNaively])

    def posted(self, account: str) -> tuple[int, int]:
        """Debits and credits, added up from the transfers each time."""
        moved = [each for each in self.transfers.values() if each[0] in ("post", "settle")]
        debits = sum(cast(int, amount) for _, debit, _, amount, *_ in moved if debit == account)
        return debits, sum(cast(int, amount) for _, _, credit, amount, *_ in moved if credit == account)

    def pending(self, account: str) -> int:
        return sum(each.left for each in self.holds.values() if each.debit == account)

    def available(self, account: str) -> int:
        debits, credited = self.posted(account)
        return credited - debits + self.limits[account] - self.pending(account)

    def post(self, name: str, debit: str, credit: str, amount: int) -> bool:
        content = ("post", debit, credit, amount, None)
        if name in self.transfers:
            if self.transfers[name] == content:
                return False
            raise Conflict("")
        if debit in self.limits and self.available(debit) < amount:
            raise InsufficientFunds("")
        self.transfers[name] = content
        return True

    def hold(self, name: str, debit: str, least: int, most: int, holder: str, expires: int) -> Granted | Refused:
        free = self.available(debit)
        if (there := self.holds.get(name)) is not None:
            if (there.debit, there.holder) != (debit, holder):
                raise Conflict("")
            return Granted(name, there.amount, free) if there.left else Refused(free)
        if free < least:
            return Refused(free)
        self.holds[name] = HeldNaively(debit, min(free, most), holder, expires)
        return Granted(name, min(free, most), free - min(free, most))

    def settle(self, batch: list[tuple[str, str, int, str]]) -> None:
        contents = [(name, ("settle", debit, "revenue", amount, hold)) for name, hold, amount, debit in batch]
        if any(dict(contents)[name] != content for name, content in contents):
            raise Conflict("")
        new = {name: content for name, content in contents if name not in self.transfers}
        if any(self.transfers[name] != content for name, content in contents if name not in new):
            raise Conflict("")
        wanted: dict[str, int] = {}
        for _, debit, _, amount, hold in new.values():
            if amount and (hold not in self.holds or self.holds[hold].debit != debit):
                raise DatabaseRefusedError
            wanted[hold] = wanted.get(hold, 0) + amount
        if any(amount and amount > self.holds[hold].left for hold, amount in wanted.items()):
            raise DatabaseRefusedError
        for name, content in new.items():
            if content[3]:
                self.transfers[name] = content
                self.holds[content[4]].settled += content[3]

    def release(self, names: set[str]) -> dict[str, int]:
        back = {name: self.holds[name].left for name in sorted(names) if name in self.holds and self.holds[name].left}
        for name, amount in back.items():
            self.holds[name].released += amount
        return back

    def renew(self, names: set[str], expires: int) -> set[str]:
        open_ones = {name for name in names if name in self.holds and self.holds[name].left}
        for name in open_ones:
            self.holds[name].expires = max(self.holds[name].expires, expires)
        return open_ones

    def expired(self, now: int) -> set[str]:
        return {name for name, each in self.holds.items() if each.left and each.expires <= now}


class Lockstep(RuleBasedStateMachine):
    def __init__(self, runner: asyncio.Runner, writer: Writer) -> None:
        super().__init__()
        self.runner, self.writer, self.model = runner, writer, NaiveLedger()
        self.prefix = f"{next(_examples)}:"
        organisation = f"org-{self.prefix}"
        self.accounts = {
            "prepaid": customer_account(AccountKind.PREPAID, organisation, "EUR"),
            "postpaid": customer_account(AccountKind.RECEIVABLE, organisation, "EUR", credit_limit_nano=40),
            "cash": house_account(AccountKind.CASH_CLEARING, "EUR"),
            "revenue": house_account(AccountKind.REVENUE, "EUR"),
        }
        self.settled: list[list[tuple[str, str, int, str]]] = []
        for account in self.accounts.values():
            self.answer(open_account_script(account, NOON))
        self.post("t0", "prepaid", 120, back=False)

    def answer(self, script: Script[Any]) -> Any:
        return self.runner.run(self.writer.run([script]))[0]

    def agree(self, script: Script[Any], expected: Any) -> Any:
        try:
            wanted = expected()
        except DatabaseRefusedError:
            with pytest.raises(Exception) as refused:  # noqa: PT011  # each driver has a class of its own
                self.answer(script)
            assert blames_content(refused.value)
            assert not isinstance(refused.value, Conflict | InsufficientFunds)
        except (Conflict, InsufficientFunds) as error:
            with pytest.raises(type(error)):
                self.answer(script)
        else:
            assert self.answer(script) == wanted

    @rule(name=transfer_ids, account=customers, amount=amounts, back=st.booleans())
    def post(self, name: str, account: str, amount: int, back: bool) -> None:
        sides = (account, "cash") if back else ("cash", account)
        debit, credit = (self.accounts[side].id for side in sides)
        posting = Posting(self.prefix + name, debit, credit, amount, NOON, "x")
        self.agree(post_script(posting), lambda: self.model.post(name, *sides, amount))

    @rule(name=hold_ids, account=customers, least=amounts, more=amounts, holder=st.sampled_from("ab"), at=expiries)
    def hold(self, name: str, account: str, least: int, more: int, holder: str, at: int) -> None:
        sides = (self.accounts[account].id, self.accounts["revenue"].id)
        new = NewHold(self.prefix + name, *sides, least, least + more, holder, at, NOON)

        def expected() -> Granted | Refused:
            wanted = self.model.hold(name, account, least, least + more, holder, at)
            return (
                Granted(new.id, wanted.amount_nano, wanted.available_nano_after)
                if isinstance(wanted, Granted)
                else wanted
            )

        self.agree(hold_script(new), expected)

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), strange=st.sampled_from([None, None, None, None, None, "prepaid", "postpaid"]))
    def settle(self, data: st.DataObject, strange: str | None) -> None:
        part = st.tuples(transfer_ids, self.known_holds(), st.integers(0, 9))
        batch = data.draw(st.lists(part, min_size=1, max_size=3))
        self.settled.append([(*each, strange or self.account_of(each[1])) for each in batch])
        self.settle_named(self.settled[-1])

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        self.settle_named(data.draw(st.sampled_from(self.settled)))

    def settle_named(self, named: list[tuple[str, str, int, str]]) -> None:
        revenue = self.accounts["revenue"].id
        settlements = [
            Settlement(self.prefix + name, self.prefix + hold, self.accounts[debit].id, revenue, amount, NOON)
            for name, hold, amount, debit in named
        ]
        self.agree(settle_script(settlements), lambda: self.model.settle(named))

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        names = data.draw(st.sets(self.known_holds(), min_size=1, max_size=2))
        script = release_script([self.prefix + name for name in names], NOON)
        self.agree(script, lambda: {self.prefix + name: left for name, left in self.model.release(names).items()})

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data(), at=expiries)
    def renew(self, data: st.DataObject, at: int) -> None:
        names = data.draw(st.sets(self.known_holds(), min_size=1, max_size=3))
        script = renew_script([self.prefix + name for name in names], at)
        self.agree(script, lambda: {self.prefix + name for name in self.model.renew(names, at)})

    @rule(now=st.integers(0, 40))
    def recover(self, now: int) -> None:
        def recovery() -> Script[set[str]]:
            # Holds of other examples in the same database are none of this one's.
            found = [each.id for each in (yield from expired_script(now, 10_000)) if each.id.startswith(self.prefix)]
            yield from release_script(found, NOON)
            return set(found)

        expired = self.model.expired(now)
        self.agree(recovery(), lambda: {self.prefix + name for name in self.model.release(expired)})

    @invariant()
    def every_balance_is_the_models(self) -> None:
        ids = {self.accounts[name].id: name for name in self.model.limits}
        rows = self.answer(_balances(list(ids)))
        for account_id, debits, pending, credited in rows:
            name = ids[account_id]
            assert (debits, credited) == self.model.posted(name)
            assert pending == self.model.pending(name)
            assert self.model.available(name) >= 0

    def known_holds(self) -> st.SearchStrategy[str]:
        known = sorted(self.model.holds)
        return st.sampled_from([*known * 4, "none"])

    def account_of(self, hold: str) -> str:
        there = self.model.holds.get(hold)
        return "prepaid" if there is None else there.debit


def _balances(ids: list[str]) -> Script[Any]:
    rows = yield Query(
        "SELECT id, debits_posted_nano, debits_pending_nano, credits_posted_nano FROM ledger_accounts WHERE id IN :ids",
        {"ids": ids},
    )
    return [tuple(row) for row in rows]


@pytest.mark.timeout(120)  # hundreds of commits, and Hypothesis shrinks what it finds
def test_the_ledger_does_what_a_naive_one_does(database_url: str) -> None:
    writer = open_writer(make_url(database_url))
    with asyncio.Runner() as runner:
        run_state_machine_as_test(
            cast(Any, lambda: Lockstep(runner, writer)),
            settings=settings(
                max_examples=30,
                stateful_step_count=30,
                deadline=None,
                print_blob=True,
            ),
        )
        assert runner.run(_problems(database_url)) == []
        runner.run(writer.close())


async def _problems(database_url: str) -> list[str]:
    database = Database(database_url)
    try:
        return await problems(database)
    finally:
        await database.close()
