"""The machine's rules of usage: prices, requests that begin and end, late ones, rating, corrections, re-rating."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing import (
    NOTICE,
    Counts,
    Match,
    NewModifier,
    NewRate,
    PriceChange,
    Rerating,
    Step,
    change_prices,
    correct_usage,
    preview_rerating,
    rate_batch,
    rerate_unmatched,
)
from galerne.billing.prices.reading import newest_version, read_book
from galerne.gateway.settled import Flight, Payment
from galerne.governance import SYSTEM
from galerne.kernel import Conflict
from tests.billing.lockstep.credit_rules import EURO, REVENUE, CreditRules
from tests.billing.lockstep.naive_bills import NaiveEvent
from tests.billing.lockstep.naive_prices import CLASSES, NaiveFactor, NaivePrice, NaivePrices, Parts
from tests.billing.lockstep.world import START
from tests.billing.rating.rerating import rate_again

MODELS, TIERS = ("large", "small"), ("standard", "priority", "batch")
models, tiers = st.sampled_from(MODELS), st.sampled_from(TIERS)
tokens = st.tuples(*(st.one_of(st.integers(0, 9), st.integers(1000, 900_000)) for _ in range(3)))
nanos = st.one_of(st.integers(10**8, 9_000_000_001), st.sampled_from([0, 1, 1_000_001, 10**11]))
modes = st.sampled_from(["graduated", "volume"])
steps = st.lists(st.tuples(st.integers(1, 9000), nanos), max_size=2, unique_by=lambda each: each[0]).map(sorted)
factors = st.tuples(
    st.sampled_from([("tier", "priority"), ("tier", "standard"), ("batch", ""), ("cached", "")]),
    st.sampled_from([0, 100_000, 500_000, 1_000_000, 1_100_001, 1_750_000]),
)
Drawn = tuple[Any, ...]
requests = st.lists(st.tuples(st.booleans(), models, tiers, tokens, st.integers(1, 100)), min_size=1, max_size=5)
late = st.lists(st.tuples(models, tiers, tokens, st.integers(0, 1500)), min_size=1, max_size=4)
changes = st.tuples(
    models,
    st.sampled_from([*CLASSES, "all"]),
    st.one_of(nanos, nanos, nanos, nanos, nanos, st.none()),
    modes,
    steps,
    st.one_of(st.none(), st.none(), factors),
)


@dataclass
class InFlight:
    flight: Flight
    bound: tuple[int, int, int]
    version: int


class UsageRules(CreditRules):
    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self.flights: list[InFlight] = []

    @initialize(prices=st.tuples(nanos, nanos), found=steps, mode=modes, begun=requests)
    def begin(self, prices: tuple[int, int], found: list[tuple[int, int]], mode: str, begun: list[Drawn]) -> None:
        self.set_prices(("large", "all", prices[0], mode, found, None), 0)
        self.set_prices(("small", "all", prices[1] + 1, mode, [], None), 0)
        self.clock.current += NOTICE
        self.post_without_a_lot(50 * EURO)
        self.begin_requests(begun)

    @rule(change=changes, later=st.sampled_from([0, 0, 0, 5, 200, 800]))
    def change_prices(self, change: Drawn, later: int) -> None:
        self.set_prices(change, later)

    def set_prices(self, change: Drawn, later: int) -> None:
        begin = self.now + (timedelta(hours=later) if later else NOTICE)
        new = _price_change(change, begin if later else None)
        written = self.services.act(lambda s: change_prices(s, SYSTEM, new, self.services.ids, self.clock))
        _write(self.bills.prices, change, begin, (written.number, [each.id for each in written.rates]))

    @rule(data=st.data(), what=st.sampled_from(["requests", "requests", "requests", "late"]))
    def customers_ask(self, data: st.DataObject, what: str) -> None:
        if what == "late":
            self.late_events(data.draw(late))
        else:
            self.begin_requests(data.draw(requests))
            self.end_requests(data, data.draw(st.sampled_from([0, 2, 9])))

    @rule(data=st.data(), begun=requests)
    def requests_begin_and_end(self, data: st.DataObject, begun: list[Drawn]) -> None:
        self.begin_requests(begun)
        self.end_requests(data, 9)

    def begin_requests(self, begun: list[Drawn]) -> None:
        for each in begun:
            self.begin_request(*each)

    def begin_request(self, owner: bool, model: str, tier: str, bound: tuple[int, int, int], lasts: int) -> None:
        prices, payment = self.bills.prices, None
        organisation = self.world.prepaid if owner else self.world.owing
        found = prices.cost(model, bound, tier, self.now, prices.version)
        if owner and found and found[0]:
            name = self.held(found[0] + 2, lasts)
            if name is None:
                return
            payment = Payment(name, self.services.account, REVENUE, found[0] + 2)
        flight = self.services.flight(organisation, model, tier, self.now, payment)
        assert (flight.rates is None) == (found is None)
        self.flights.append(InFlight(flight, bound, prices.version))

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), many=st.integers(1, 9))
    def requests_end(self, data: st.DataObject, many: int) -> None:
        self.end_requests(data, many)

    def end_requests(self, data: st.DataObject, many: int) -> None:
        ending: list[tuple[InFlight, tuple[int, int, int]]] = []
        for _ in range(min(many, len(self.flights))):
            one = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
            used = tuple(data.draw(st.integers(0, count)) for count in one.bound)
            ending.append((one, (used[0], used[1], used[2])))
        # One commit settles from holds before it posts what has none left, and burns lots in that order.
        ending.sort(key=lambda each: self.lost_its_hold(each[0].flight))
        # Holds that are gone are the gateway's to notice: it tries again without, and then unpaid.
        settled = [self.payable(one, used) for one, used in ending]
        for _ in range(2):  # a confirmation was lost
            self.services.commit(*settled)

    def lost_its_hold(self, flight: Flight) -> bool:
        return flight.payment is not None and flight.payment.hold_id not in self.credit.holds

    def payable(self, one: InFlight, used: tuple[int, int, int]) -> Any:
        flight, settled = one.flight, self.services.ended(one.flight, used)
        event = NaiveEvent(flight.id, flight.organisation_id, flight.model, flight.tier, flight.started_at, used, 0)
        self.bills.events[event.id] = event
        found = self.bills.cost(event, one.version)
        assert settled.cost_nano == (found[0] if found else 0)
        owed = settled.paid_nano
        if flight.payment is None or not owed:
            assert settled.settlement is None
            return settled
        assert found
        assert owed == found[0]
        hold, when = self.credit.holds.get(flight.payment.hold_id), self.now
        if hold is None:
            second = settled.second_best()
            assert second is not None
            settled = second
            if self.credit.available < owed:
                return settled.unpaid()
        else:
            hold.left, when = hold.left - owed, hold.at
            if not hold.left:
                del self.credit.holds[hold.id]
        event.paid = owed
        self.credit.charge(event.id, REVENUE, owed, when)
        return settled

    def late_events(self, late: list[Drawn]) -> None:
        for model, tier, used, ago in late:
            at = max(self.now - timedelta(hours=ago), START)
            flight = self.services.flight(self.world.owing, model, tier, at)
            self.services.commit(self.services.ended(flight, used))
            self.bills.events[flight.id] = NaiveEvent(flight.id, self.world.owing, model, tier, at, used)

    @rule(data=st.data(), what=st.sampled_from(["rate", "rate", "queue", "correct", "correct", "again"]))
    def usage_is_rated(self, data: st.DataObject, what: str) -> None:
        rated = sorted(name for name, each in self.bills.events.items() if each.revisions)
        most = data.draw(st.sampled_from([1, 2, 5, 100]))
        if what == "rate":
            self.rate(most, data.draw(st.booleans()))
        elif what == "queue":
            self.rate_the_queue(most)
        elif what == "correct" and rated:
            self.correct_an_event(self.bills.events[data.draw(st.sampled_from(rated))], data.draw(st.none() | tokens))
        elif what == "again" and rated:
            self.rate_again_by_other_prices(
                data.draw(changes), data.draw(st.integers(1, 1500)), data.draw(st.sampled_from([True, True, False]))
            )

    def rate(self, most: int, whole: bool) -> None:
        after, more = "", True
        while more:
            batch = self.services.act(lambda s, after=after: rate_batch(s, self.clock, after, most))
            # One batch looks only so far, and there is more: what it passed has a state, what lies behind waits.
            rated = self.bills.rate(most, batch.last_id if batch.more else None)
            states = Counter(each.state for each in rated)
            assert (batch.rated, batch.unmatched) == (states["rated"], states["unmatched"])
            assert batch.late == sum(each.revisions[-1].period != each.month for each in rated)
            if batch.more:
                assert self.bills.waiting(batch.last_id) == self.bills.waiting()
                assert len(rated) == most or sum(after < name <= batch.last_id for name in self.bills.events) > most
            after, more = batch.last_id, batch.more
            if not whole:
                return
        assert self.bills.waiting() == []

    def rate_the_queue(self, most: int) -> None:
        after, more, count = "", True, 0
        while more:
            done, after = self.services.act(lambda s, after=after: rerate_unmatched(s, self.clock, most, after))
            count, more = count + done, bool(after)
        assert count == self.bills.rate_queue()

    def correct_an_event(self, event: NaiveEvent, used: tuple[int, int, int] | None) -> None:
        counts = None if used is None else Counts(*used)
        found = self.services.act(lambda s: correct_usage(s, SYSTEM, event.id, counts, "why", self.clock))
        event.tokens = used or (0, 0, 0)
        self.bills.revise(event, "voided" if used is None else None, event.revisions[-1].version)
        assert (found.state, found.revision) == (event.state, len(event.revisions) - 1)

    def rate_again_by_other_prices(self, change: Drawn, ago: int, agreed: bool) -> None:
        begin = self.now - timedelta(hours=ago)
        new = replace(_price_change(change, begin), retroactive=True)
        report = self.services.act(lambda s: preview_rerating(s, new, self.clock))
        proposed = NaivePrices([*self.bills.prices.prices], [*self.bills.prices.factors])
        _write(proposed, change, begin, None)
        changed = self.differences(report, begin, proposed)
        digest = report.digest if agreed else "0" * 64
        if not agreed:
            with pytest.raises(Conflict) as refused:
                self.services.act(lambda s: rate_again(s, new, digest, self.services.ids, self.clock))
            assert refused.value.code == "rerating_changed"
            return
        applied = self.services.act(lambda s: rate_again(s, new, digest, self.services.ids, self.clock))
        assert applied == report
        version = self.services.look(_newest)
        _write(self.bills.prices, change, begin, version)
        for event in changed:
            self.bills.revise(event, None, version[0])

    def differences(self, report: Rerating, begin: datetime, proposed: NaivePrices) -> list[NaiveEvent]:
        live = [e for e in self.bills.events.values() if e.revisions and e.at >= begin and e.state != "voided"]
        sums: dict[tuple[Any, ...], list[int]] = {}
        changed: list[NaiveEvent] = []
        for event in live:
            found = proposed.cost(event.model, event.tokens, event.tier, event.at, proposed.version)
            sides = (event.revisions[-1].parts, found[1] if found else Parts())
            for index, parts in enumerate(sides):
                for line, (_, nano) in parts.items():
                    sums.setdefault((event.owner, *line[:5]), [0, 0])[index] += nano
            old, then = ([(line.kind, nano) for line, (_, nano) in parts.items()] for parts in sides)
            if old != then or (event.state == "rated") != (found is not None):
                changed.append(event)
        assert (report.events, report.changed) == (len(live), len(changed))
        what = (
            "organisation_id",
            "model_id",
            "token_class",
            "service_tier",
            "zone",
            "batch",
            "before_nano",
            "after_nano",
        )
        shown = [tuple(getattr(each, name) for name in what) for each in report.differences]
        assert shown == sorted((*key, *both) for key, both in sums.items() if both[0] != both[1])
        return changed


def _price_change(change: Drawn, begin: datetime | None) -> PriceChange:
    model, _, nano, mode, found, factor = change
    rates = tuple(
        NewRate(
            match=Match(token_class=kind, model_id=model),
            currency="EUR",
            nano=nano,
            effective_from=begin,
            volume=mode if found and nano is not None else None,
            steps=tuple(Step(*each) for each in found) if nano is not None else (),
        )
        for kind in _kinds(change)
    )
    modifiers = (
        [NewModifier(kind=factor[0][0], value=factor[0][1], ppm=factor[1], effective_from=begin)] if factor else []
    )
    return PriceChange(rates=rates, modifiers=tuple(modifiers))


def _kinds(change: Drawn) -> tuple[Any, ...]:
    return CLASSES if change[1] == "all" else (change[1],)


def _write(prices: NaivePrices, change: Drawn, begin: datetime, written: tuple[int, list[str]] | None) -> None:
    model, _, nano, mode, found, factor = change
    version, names = written or (prices.version + 1, ["new"] * 3)
    for kind, name in zip(_kinds(change), names, strict=False):
        price = NaivePrice(name, model, kind, begin, version, nano)
        steps = found and nano is not None
        prices.prices.append(replace(price, mode=mode, steps=tuple(found)) if steps else price)
    if factor:
        (kind, value), ppm = factor
        prices.factors.append(NaiveFactor(kind, value, begin, version, Fraction(ppm, 10**6)))


async def _newest(session: AsyncSession) -> tuple[int, list[str]]:
    book, version = await read_book(session), await newest_version(session)
    found = {each.match.token_class: each.id for each in book.rates if each.version == version}
    return version, [found[kind] for kind in CLASSES if kind in found]
