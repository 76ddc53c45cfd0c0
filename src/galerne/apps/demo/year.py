"""The months of the demonstration, by the code that bills everybody: requests settled, months closed, money in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path

from msgspec.structs import replace

from galerne.apps.demo.beginning import Beginning, Party
from galerne.apps.demo.story import TOP_UP_NANO, Asked, Transfer, requests_of, statement_xml
from galerne.billing import PPM, Rates, rates_of
from galerne.billing.documents.amounts import from_minor
from galerne.billing.invoices import (
    Checker,
    CloseOrder,
    CloseParts,
    Invoice,
    TopUp,
    close_billing,
    draft_top_up,
    finalise_checked,
    list_invoices,
)
from galerne.billing.payments import creditor_reference, import_statement, read_camt053
from galerne.billing.subscriptions import Ask, ask
from galerne.gateway.commit import Commit, commit_script
from galerne.gateway.settled import Ending, Flight, Payment, Settled, settle_flight
from galerne.gateway.wire.answer import TokenCount
from galerne.governance import Actor, ActorKind
from galerne.kernel import Database, Ids, ManualClock
from galerne.kernel.writer import Writer
from galerne.ledger import AccountKind, Granted, NewHold, customer_account, hold_script, house_account

_BATCH = 128
_HOUR_MS = 3_600_000


@dataclass(slots=True)
class Counts:
    """What the story came to."""

    requests: int = 0
    refused: int = 0
    invoices: int = 0
    paid: int = 0
    waiting: int = 0


@dataclass(slots=True)
class Year:
    """What the months work with; `folder` is where the bank's statements are written."""

    database: Database
    writer: Writer
    begun: Beginning
    ids: Ids
    clock: ManualClock
    check: Checker
    folder: Path
    counts: Counts = field(default_factory=Counts)
    rates: dict[str, Rates] = field(default_factory=dict[str, Rates])
    half_paid: set[str] = field(default_factory=set[str])

    async def month(self, start: datetime, end: datetime, requests: Sequence[Asked]) -> None:
        """A month from its first day to the closing of it on the next one's."""
        self.clock.current = start + timedelta(hours=8)
        await self._sell_credit(start)
        self.clock.current = start + timedelta(days=1, hours=20)
        await self.bank_day(start)
        for _, week in groupby(requests, key=lambda each: each.at.isocalendar()[:2]):
            await self._week(list(week))
        self.clock.current = end + timedelta(hours=6)
        order = CloseOrder(period=f"{start:%Y-%m}")
        parts = CloseParts(ids=self.ids, clock=self.clock, check=self.check)
        report = await close_billing(self.database, self.begun.operator, order, parts)
        self.counts.invoices += report.invoices

    async def add_seats(self, name: str, seats: int) -> None:
        """A customer takes more seats, prorated from where the clock stands."""
        async with self.database.transaction() as session:
            await ask(session, self.begun.parties[name].actor, Ask(what="seats", seats=seats), self.ids, self.clock)

    async def bank_day(self, month: datetime, extra: Sequence[Transfer] = ()) -> None:
        """The bank books what customers owe; its statement is written to a file, and imported from it."""
        transfers = [*[self._transfer(each) for each in await self._open()], *extra]
        if not transfers:
            return
        path = self.folder / f"{month:%Y-%m}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(statement_xml(f"{month:%Y%m}", self.clock.now().date(), transfers))
        async with self.database.transaction() as session:
            entries = read_camt053(path.read_bytes())
            found = await import_statement(session, self.begun.operator, entries, self.ids, self.clock)
        self.counts.paid += found.paid
        self.counts.waiting += found.waiting

    async def _sell_credit(self, month: datetime) -> None:
        for party in self.begun.parties.values():
            if party.customer.prepaid:
                asked = TopUp(
                    organisation_id=party.id, amount_nano=TOP_UP_NANO, currency="EUR", request_id=f"{month:%Y-%m}"
                )
                operator = self.begun.operator
                async with self.database.transaction() as session:
                    draft = await draft_top_up(session, operator, asked, self.ids, self.clock)
                await finalise_checked(self.database, operator, draft.id, self.check, self.clock)
                self.counts.invoices += 1

    async def _open(self) -> list[Invoice]:
        async with self.database.reading() as session:
            found = await list_invoices(session, None, limit=1000)
        return [each for each in found if each.kind == "invoice" and (each.open_minor or 0) > 0]

    def _transfer(self, invoice: Invoice) -> Transfer:
        party = next(each for each in self.begun.parties.values() if each.id == invoice.organisation_id)
        amount, number = from_minor(invoice.open_minor or 0, "EUR"), invoice.number or ""
        customer = party.customer
        if customer.plan == "team" and number.endswith(("3", "7")) and number not in self.half_paid:
            self.half_paid.add(number)  # half of it now, the rest next month
            amount = (amount / 2).quantize(Decimal("0.01"))
        by_reference = customer.plan == "enterprise"
        text, reference = ("", creditor_reference(number)) if by_reference else (f"Invoice {number}", "")
        return Transfer(customer.legal_name, customer.iban, amount, text, reference)

    async def _week(self, asked: Sequence[Asked]) -> None:
        """A week's requests, settled as a gateway settles them: those who pay in advance from a hold of that week."""
        flights = [(each, await self._flight(each)) for each in asked]
        for party in self.begun.parties.values():
            if party.customer.prepaid:
                flights = await self._held(party, flights)
        self.clock.current += timedelta(minutes=1)
        settled = [self._settled(each, flight) for each, flight in flights]
        parts = [Commit(settled[start : start + _BATCH]) for start in range(0, len(settled), _BATCH)]
        await self.writer.run([commit_script(part) for part in parts])
        self.counts.requests += len(settled)

    async def _held(self, party: Party, flights: list[tuple[Asked, Flight]]) -> list[tuple[Asked, Flight]]:
        own = [(each, flight) for each, flight in flights if flight.organisation_id == party.id]
        most = sum(flight.cost_nano(_count(each)) for each, flight in own)
        if not most:
            return flights
        debit = customer_account(AccountKind.PREPAID, party.id, "EUR").id
        credit = house_account(AccountKind.REVENUE, "EUR").id
        now = self.clock.now()
        expires = int(now.timestamp() * 1000) + _HOUR_MS
        hold = NewHold(self.ids.new(), debit, credit, most, most, "demo", expires, now)
        (granted,) = await self.writer.run([hold_script(hold)])
        if not isinstance(granted, Granted):
            self.counts.refused += len(own)  # without credit there is no answer, as a gateway does
            return [each for each in flights if each[1].organisation_id != party.id]
        payment = Payment(hold.id, debit, credit, most)
        return [
            (each, _paying(flight, payment) if flight.organisation_id == party.id else flight)
            for each, flight in flights
        ]

    async def _flight(self, asked: Asked) -> Flight:
        self.clock.current = max(self.clock.current, asked.at)
        party = self.begun.parties[asked.customer.name]
        key_id, workspace_id = party.keys[asked.key]
        return Flight(
            id=self.ids.new(),
            organisation_id=party.id,
            workspace_id=workspace_id,
            key_id=key_id,
            model=asked.model,
            model_version=f"{asked.model}-1",
            endpoint="chat/completions",
            dialect="openai",
            tier="standard",
            zone="",
            streamed=True,
            started_at=asked.at,
            modifier_ppm=PPM,
            rates=await self._rates(asked.model),
        )

    async def _rates(self, model: str) -> Rates | None:
        if model not in self.rates:
            async with self.database.reading() as session:
                found = await rates_of(session, model, self.clock.now(), "EUR")
            if found is not None:
                self.rates[model] = found
        return self.rates.get(model)

    def _settled(self, asked: Asked, flight: Flight) -> Settled:
        at = asked.at + timedelta(milliseconds=asked.total_ms)
        ending = Ending(
            outcome="completed",
            status=200,
            finish_reason="stop",
            queue_ms=0.5,
            ttft_ms=asked.total_ms / 9,
            total_ms=asked.total_ms,
            at=at,
        )
        actor = Actor(ActorKind.API_KEY, flight.key_id, flight.organisation_id, flight.workspace_id)
        return settle_flight(flight, _count(asked), ending, "inference.completed", actor)


async def live(year: Year, months: Sequence[datetime], seed: int, scale: float, told: Callable[[str], None]) -> None:
    """Every month in its order, and the bank's first day after them, with what only a person can decide."""
    for number, (start, end) in enumerate(pairwise(months)):
        if number == 4:
            year.clock.current = start + timedelta(hours=7)
            await year.add_seats("atelier-nord", 8)
        await year.month(start, end, list(requests_of(seed, start, number, scale)))
        told(f"{start:%Y-%m} closed: {year.counts.requests:,} requests, {year.counts.invoices} invoices so far")
    year.clock.current = months[-1] + timedelta(days=1, hours=20)
    unknown = [
        Transfer("Unknown Trading Ltd", "GB29NWBK60161331926819", Decimal("49.00"), "as agreed"),
        Transfer("", "", Decimal("-7.50"), "account fee"),
    ]
    await year.bank_day(months[-1], unknown)


def _count(asked: Asked) -> TokenCount:
    return TokenCount(asked.input_tokens, asked.cached_tokens, asked.output_tokens)


def _paying(flight: Flight, payment: Payment) -> Flight:
    return replace(flight, payment=payment)
