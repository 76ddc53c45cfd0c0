"""A house with an issuer, prices and customers of each sort, and a month of usage to bill."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from galerne.billing import NewRates, set_rates
from galerne.billing.contracts import ContractTerms, draft_contract, sign_contract
from galerne.billing.documents.document import Address, Identifier
from galerne.billing.documents.validation import Finding
from galerne.billing.invoices import (
    BillingProfile,
    CloseOrder,
    CloseParts,
    CloseReport,
    Invoice,
    InvoiceLine,
    Issuer,
    close_billing,
    invoice_lines,
    list_invoices,
    set_issuer,
    set_profile,
)
from galerne.governance import SYSTEM, Actor
from galerne.identity import NewOrganisation, create_organisation
from galerne.kernel import Database, Ids, ManualClock, run_in_session
from galerne.ledger import (
    AccountKind,
    Grant,
    NewHold,
    Settlement,
    customer_account,
    grant_credit,
    hold_script,
    house_account,
    settle_script,
)
from galerne.metering import record
from galerne.models import ExternalModel, add_external
from tests.metering.events import event

SEPTEMBER = datetime(2026, 9, 20, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
CLOSING = NOVEMBER + timedelta(hours=6)
PRICES = NewRates(
    currency="EUR",
    input_nano_per_million=400_000_000,
    cached_nano_per_million=40_000_000,
    output_nano_per_million=1_600_000_000,
)
LARGE = MappingProxyType({"large": PRICES})
NANTES = Address(line1="12 quai de la Fosse", city="Nantes", postcode="44000", country="FR")
ISSUER = Issuer(
    id="fr",
    name="Galerne SAS",
    address=NANTES,
    prefix="FR",
    vat_id="FR40303265045",
    legal_id=Identifier(value="303265045", scheme="0002"),
    iban="FR76 3000 6000 0112 3456 7890 189",
    bic="AGRIFRPP",
    account_name="Galerne SAS",
    one_stop_shop=True,
)
HAMBURG = Address(line1="Große Bleichen 5", city="Hamburg", postcode="20354", country="DE")
_numbers = itertools.count(1)


def fine(_xml: bytes) -> list[Finding]:
    return []


@dataclass
class House:
    """The house; `actor` is its operator."""

    database: Database
    clock: ManualClock
    ids: Ids
    actor: Actor = SYSTEM

    async def customer(self, name: str, **profile: Any) -> str:
        """A new organisation with a billing profile in Nantes, by id."""
        async with self.database.transaction() as session:
            organisation, _ = await create_organisation(session, NewOrganisation(name=name), self.ids, self.clock)
            fields: dict[str, Any] = {"issuer_id": "fr", "name": name, "address": NANTES, "is_business": True}
            await set_profile(
                session, SYSTEM, BillingProfile(organisation_id=organisation.id, **(fields | profile)), self.clock
            )
            return organisation.id

    async def use(
        self, organisation_id: str, *tokens: tuple[int, int, int], at: datetime = OCTOBER, model: str = "large"
    ) -> list[str]:
        """Requests of an organisation, one after the other; their ids."""
        events: list[Any] = []
        for counts in tokens:
            number = next(_numbers)
            moment = at + timedelta(seconds=number)
            events.append(
                event(
                    id=f"{int(moment.timestamp() * 1000):012x}7{number:019x}",
                    organisation_id=organisation_id,
                    model=model,
                    input_tokens=counts[0],
                    cached_tokens=counts[1],
                    output_tokens=counts[2],
                    started_at=moment,
                )
            )
        async with self.database.transaction() as session:
            await record(session, events)
        return [each.id for each in events]

    async def grant(self, organisation_id: str, nano: int) -> None:
        """Prepaid credit."""
        async with self.database.transaction() as session:
            actor = replace(SYSTEM, organisation_id=organisation_id)
            grant = Grant(id=self.ids.new(), amount_nano=nano, currency="EUR", reason="test")
            await grant_credit(session, actor, grant, self.clock)

    async def settle(self, organisation_id: str, charges: dict[str, int]) -> None:
        """Take from the credit what each of these requests cost, as the gateway does."""
        account = customer_account(AccountKind.PREPAID, organisation_id, "EUR").id
        revenue, now = house_account(AccountKind.REVENUE, "EUR").id, self.clock.now()
        async with self.database.transaction() as session:
            for name, nano in charges.items():
                hold = self.ids.new()
                new = NewHold(hold, account, revenue, nano, nano, "test", 2**42, now)
                await run_in_session(session, hold_script(new))
                done = Settlement(name, hold, account, revenue, nano, now)
                await run_in_session(session, settle_script([done]))

    async def contract(self, organisation_id: str, terms: ContractTerms) -> str:
        """A signed contract."""
        actor = replace(SYSTEM, organisation_id=organisation_id)
        async with self.database.transaction() as session:
            made = await draft_contract(session, actor, "Frame", terms, self.ids, self.clock)
            await sign_contract(session, actor, made.contract_id, (1, made.sha256, "Ada"), self.clock)
        return made.contract_id

    def parts(self, **other: Any) -> CloseParts:
        """What closing works with; every document is found in order."""
        usual: dict[str, Any] = {"ids": self.ids, "clock": self.clock, "check": fine}
        return CloseParts(**(usual | other))

    async def close(self, period: str = "2026-10", parts: CloseParts | None = None, **order: Any) -> CloseReport:
        """Close a month."""
        if self.clock.current < CLOSING:
            self.clock.current = CLOSING
        return await close_billing(self.database, self.actor, CloseOrder(period=period, **order), parts or self.parts())

    async def invoices(self, organisation_id: str | None = None) -> list[Invoice]:
        """The invoices of an organisation, or all."""
        async with self.database.reading() as session:
            return await list_invoices(session, organisation_id)

    async def lines(self, invoice_id: str) -> list[InvoiceLine]:
        """An invoice's lines."""
        async with self.database.reading() as session:
            return await invoice_lines(session, invoice_id)


async def house_in(
    database: Database, opened: datetime = SEPTEMBER, models: Mapping[str, NewRates | None] = LARGE
) -> House:
    """A house that opens then, with an issuer, and models at their prices or without."""
    house = House(database, ManualClock(opened), Ids())
    async with database.transaction() as session:
        for name, prices in models.items():
            await add_external(session, SYSTEM, ExternalModel(name=name, url="http://127.0.0.1:9/v1"), house.clock)
            if prices is not None:
                await set_rates(session, SYSTEM, name, prices, Ids(), house.clock)
        await set_issuer(session, SYSTEM, ISSUER, house.clock)
    return house
