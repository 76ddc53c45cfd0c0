"""The machine's rules of invoices: closing, credit notes, payments, refunds; and what is compared after each step."""

from collections import Counter
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing import (
    month_start,
    rating_counts,
    unmatched_usage,
    usage_lines,
)
from galerne.billing.invoices import (
    CloseOrder,
    Crediting,
    Invoice,
    close_billing,
    draft_credit_note,
    finalise_checked,
    invoice_lines,
    list_invoices,
    void_invoice,
)
from galerne.billing.payments import NewPayment, NewRefund, record_payment, refund_payment
from galerne.governance import SYSTEM
from galerne.journal import verify
from galerne.kernel import Conflict
from galerne.ledger import all_accounts, allocate_script, check_books
from tests.billing.invoice_usage.houses import checked, said
from tests.billing.invoices.customers import fine
from tests.billing.lockstep.credit_rules import CASH, REVENUE
from tests.billing.lockstep.naive_bills import CENT, NaiveInvoice, NaiveLine, cents, following
from tests.billing.lockstep.usage_rules import UsageRules

LAST = "2027-03"
TAX, ROUNDING = "tax_payable:EUR", "rounding:EUR"
minors = st.one_of(st.integers(1, 200), st.integers(1, 10**7))


class BillRules(UsageRules):
    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self.payments: dict[str, dict[str, Any]] = {}
        self.open_month = "2026-10"

    @precondition(lambda self: self.open_month < LAST and self.has_something_to_close())
    @rule(later=st.integers(0, 100))
    def close_a_month(self, later: int) -> None:
        period = self.open_month
        ended = month_start(following(period))
        if self.now < ended:
            self.clock.current = ended + timedelta(hours=later)
        order = CloseOrder(period=period, allow_unmatched=True)
        parts = self.services.house.parts()
        report = self.services.wait(close_billing(self.services.database, SYSTEM, order, parts))
        self.bills.rate()
        self.bills.rate_queue()
        self.bills.closed.append(period)
        self.open_month = following(period)
        made = [self.invoiced(owner, period) for owner in sorted((self.world.prepaid, self.world.owing))]
        assert report.refused == {}
        assert report.invoices == sum(each is not None and each.state != "empty" for each in made)
        assert report.unmatched == sum(
            each.state == "unmatched" and each.at < ended for each in self.bills.events.values()
        )
        again = self.services.wait(close_billing(self.services.database, SYSTEM, order, parts))
        assert (again.invoices, again.empty) == (report.invoices, report.empty)

    def has_something_to_close(self) -> bool:
        # Else a few closings at the beginning would leave nothing for the rest.
        used = any(each.month == self.open_month for each in self.bills.events.values())
        return used or self.open_month < f"{self.now:%Y-%m}"

    def invoiced(self, owner: str, period: str) -> NaiveInvoice | None:
        made = self.bills.draft(owner, period)
        if made is None:
            return None
        if made.due > 0:
            made.number = self.bills.number(f"FR-{self.now.year}")
        else:
            made.state = "empty"
        if made.due >= 0:
            self.book(made, 1)
        self.bills.invoices.append(made)
        return made

    def book(self, invoice: NaiveInvoice, sign: int) -> None:
        exact = sum(each.exact_nano for each in invoice.lines)
        self.post(invoice.owner, sign * invoice.due, sign * invoice.tax, sign * exact)

    def post(self, owner: str, due: int, tax: int, revenue: int) -> None:
        self.books[f"receivable:{owner}:EUR"] -= due * CENT
        self.books[TAX] += tax * CENT
        self.books[REVENUE] += revenue
        self.books[ROUNDING] += (due - tax) * CENT - revenue

    def final(self) -> list[tuple[NaiveInvoice, Invoice]]:
        found = self.services.look(lambda session: list_invoices(session, None, limit=1000))
        known = {(each.number): each for each in self.bills.invoices if each.number}
        return [(known[each.number], each) for each in found if each.number and each.kind == "invoice"]

    @precondition(lambda self: any(each.number for each in self.bills.invoices))
    @rule(data=st.data(), what=st.sampled_from(["pay", "pay", "pay", "refund", "refund", "credit", "void"]))
    def invoices_change(self, data: st.DataObject, what: str) -> None:
        if what == "refund":
            if self.payments:
                name = data.draw(st.sampled_from(sorted(self.payments)))
                self.refund_a_payment(name, data.draw(st.none() | minors))
            return
        chosen = data.draw(st.sampled_from(self.final()))
        if what == "void":
            self.void_an_invoice(*chosen)
        elif what == "pay":
            self.pay_an_invoice(*chosen, data.draw(st.none() | minors))
        else:
            self.credit_an_invoice(*chosen, data.draw(st.none() | minors))

    def credit_an_invoice(self, naive: NaiveInvoice, invoice: Invoice, net: int | None) -> None:
        asked = Crediting(invoice_id=invoice.id, reason="why", request_id=self.name("r"), net_minor=net)
        ids, clock = self.services.ids, self.clock
        amount = naive.net if net is None else net
        tax = cents(Fraction(amount, 500))
        if naive.state == "void" or (naive.credited if net is None else amount > naive.net):
            with pytest.raises(Conflict):
                self.services.act(lambda s: draft_credit_note(s, SYSTEM, asked, ids, clock))
            return
        draft = self.services.act(lambda s: draft_credit_note(s, SYSTEM, asked, ids, clock))
        finalised = finalise_checked(self.services.database, SYSTEM, draft.id, fine, clock)
        if amount + tax > naive.due - naive.credited:
            with pytest.raises(Conflict, match="more than the"):
                self.services.wait(finalised)
            return
        note = self.services.wait(finalised)
        made = NaiveInvoice(naive.owner, None, [], net=amount, tax=tax)
        made.number = self.bills.number(f"FR-C-{self.now.year}")
        assert (note.number, note.net_minor, note.tax_minor) == (made.number, amount, tax)
        if made.due == naive.due:
            self.book(naive, -1)
        else:
            self.post(naive.owner, -made.due, -tax, -amount * CENT)
        naive.credited += made.due
        naive.settle()
        self.bills.invoices.append(made)

    def void_an_invoice(self, naive: NaiveInvoice, invoice: Invoice) -> None:
        if naive.state != "void" and (naive.paid or naive.credited):
            with pytest.raises(Conflict):
                self.services.act(lambda s: void_invoice(s, SYSTEM, invoice.id, "why", self.clock))
            return
        for _ in range(2):
            self.services.act(lambda s: void_invoice(s, SYSTEM, invoice.id, "why", self.clock))
        if naive.state != "void":
            self.book(naive, -1)
            naive.state = "void"

    def pay_an_invoice(self, naive: NaiveInvoice, invoice: Invoice, minor: int | None) -> None:
        amount = minor or max(1, naive.open)
        new = NewPayment(
            organisation_id=naive.owner,
            method="bank_transfer",
            reference=self.name("b"),
            currency="EUR",
            amount_minor=amount,
            received_on=self.now.date(),
            invoice_ids=(invoice.id,),
        )
        pay = partial(record_payment, actor=SYSTEM, new=new, ids=self.services.ids, clock=self.clock)
        paid = self.services.act(pay)
        assert self.services.act(pay) == paid
        used = min(amount, max(0, naive.open)) if naive.state == "final" else 0
        assert (paid.allocated_minor, paid.free_minor) == (used, amount - used)
        naive.paid += used
        naive.settle()
        self.payments[paid.id] = {"of": naive, "amount": amount, "used": used, "back": 0}
        self.money(naive.owner, amount)

    def refund_a_payment(self, name: str, minor: int | None) -> None:
        payment = self.payments[name]
        left = payment["amount"] - payment["back"]
        new = NewRefund(request_id=self.name("f"), amount_minor=minor or left or 1, reason="why")

        def refund() -> Any:
            return self.services.act(lambda s: refund_payment(s, SYSTEM, name, new, self.services.ids, self.clock))

        if new.amount_minor > left:
            with pytest.raises(Conflict) as refused:
                refund()
            assert refused.value.code == "refund_above_capture"
            return
        assert refund() == refund()
        from_invoice = max(0, new.amount_minor - (left - payment["used"]))
        payment["back"] += new.amount_minor
        payment["used"] -= from_invoice
        payment["of"].paid -= from_invoice
        payment["of"].settle()
        self.money(payment["of"].owner, -new.amount_minor)

    def money(self, owner: str, minor: int) -> None:
        self.books[CASH] -= minor * CENT
        self.books[f"receivable:{owner}:EUR"] += minor * CENT

    @invariant()
    def books_and_usage_are_the_naive_ones(self) -> None:
        balances, counts, queue, lines = self.services.look(self.read)
        found = {each.account.id: each.credit_nano for each in balances if each.credit_nano}
        differ = {name: (found.get(name, 0), nano) for name, nano in self.books.items() if found.get(name, 0) != nano}
        assert differ == {}, differ
        assert found.keys() <= self.books.keys()
        assert sum(found.values()) == 0
        assert all(each.available_nano is None or each.available_nano >= 0 for each in balances)
        (prepaid,) = [each for each in balances if each.account.id == self.services.account]
        assert (prepaid.available_nano, prepaid.debits_pending_nano) == (self.credit.available, self.credit.held)
        states = Counter(each.state for each in self.bills.events.values())
        assert {state: count for state, count in counts.items() if count and state != "events"} == states
        waiting = [each for each in self.bills.events.values() if each.state == "unmatched"]
        assert {model: (count, since) for model, count, since in queue} == {
            model: (len(own), min(each.at for each in own).replace(microsecond=0))
            for model in {each.model for each in waiting}
            if (own := [each for each in waiting if each.model == model])
        }
        for owner, month, shown in lines:
            assert shown == self.bills.usage_lines(owner, month), (owner, month)

    async def read(self, session: AsyncSession) -> Any:
        found: list[tuple[str, str, list[NaiveLine]]] = []
        for owner in (self.world.prepaid, self.world.owing):
            month = self.open_month
            while month <= f"{self.now:%Y-%m}":
                found.append((owner, month, [_line(each) for each in await usage_lines(session, owner, month)]))
                month = following(month)
        counts, queue = await rating_counts(session), await unmatched_usage(session)
        return await all_accounts(session), counts, queue, found

    @invariant()
    def invoices_are_the_naive_ones(self) -> None:
        found = self.services.look(self.read_invoices)
        same = ("net_minor", "tax_minor", "open_minor")
        named = [
            (each.number or "", each.organisation_id, each.period or "", each.state, *(getattr(each, n) for n in same))
            for each, _ in found
            if each.state != "draft"
        ]
        assert sorted(named) == sorted(each.named for each in self.bills.invoices)
        naive = {(each.owner, each.period): each for each in self.bills.invoices if each.period}
        for invoice, lines in found:
            if invoice.purpose == "period":
                each = naive[invoice.organisation_id, invoice.period]
                shown = [
                    NaiveLine(line.kind, line.quantity, Fraction(line.price) / line.base_quantity, line.exact_nano)
                    for line in lines
                ]
                assert shown == each.lines
                assert (invoice.usage_size, invoice.usage_root) == (each.size, each.root)

    async def read_invoices(self, session: AsyncSession) -> Any:
        return [
            (each, await invoice_lines(session, each.id) if each.purpose == "period" else [])
            for each in await list_invoices(session, None, limit=1000)
        ]

    def teardown(self) -> None:
        while self.services.script(allocate_script(self.services.account, 7)).more:
            pass
        self.lots_are_the_naive_ones()
        assert self.services.look(check_books) == []
        keys = self.services.sign()
        assert self.services.look(verify).problem is None
        for invoice, _ in self.services.look(self.read_invoices):
            if invoice.purpose != "period":
                continue
            proof = self.services.wait(self.services.installation.proof(invoice.id))
            assert said(checked(proof, keys)) == []
        self.services.close()


def _line(used: Any) -> NaiveLine:
    price = Fraction(used.price_nano, used.per) / 10**9
    return NaiveLine("usage", used.quantity, price, used.requests_nano + used.volume_nano)
