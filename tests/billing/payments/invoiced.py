"""A customer with final invoices, made row by row: what payments need of invoices and no more."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from sqlalchemy import text

from galerne.billing.invoices.tables import InvoiceEventRow, InvoiceRow, IssuerRow
from galerne.billing.payments import NewPayment, Payment, StatementEntry, receivable, record_payment
from galerne.governance import SYSTEM, Actor
from galerne.kernel import Database, run_in_session
from galerne.ledger import (
    AccountKind,
    Posting,
    accounts_of,
    all_accounts,
    check_books,
    house_account,
    open_account_script,
    post_script,
)
from tests.identity.tenants import NOW, Tenants, two_tenants


@dataclass
class Invoiced:
    """Two organisations; `operator` records payments, `organisation_id` owes."""

    tenants: Tenants
    operator: Actor

    @property
    def database(self) -> Database:
        return self.tenants.database

    @property
    def organisation_id(self) -> str:
        return self.tenants.stranger.organisation_id

    async def invoice(self, number: str, due_minor: int = 10_000, currency: str = "EUR", owner: str = "") -> str:
        """A final invoice's id, posted to what its owner owes."""
        owner, invoice_id, clock = owner or self.organisation_id, self.tenants.ids.new(), self.tenants.clock
        async with self.database.transaction() as session:
            if await session.get(IssuerRow, "FR") is None:
                session.add(IssuerRow(id="FR", body={}, updated_at=NOW))
                await session.flush()
            row: dict[str, Any] = {
                "id": invoice_id,
                "organisation_id": owner,
                "issuer_id": "FR",
                "kind": "invoice",
                "purpose": "reissue",
                "period": None,
                "currency": currency,
                "state": "final",
                "series": "FR-2026",
                "sequence": int(number.rpartition("-")[2]),
                "number": number,
                "issued_on": date(2026, 11, 23),
                "due_on": date(2026, 12, 23),
                "net_minor": due_minor,
                "tax_minor": 0,
                "due_minor": due_minor,
                "usage_root": b"\0" * 32,
                "usage_size": 0,
                "document": "{}",
                "sha256": "0" * 64,
                "created_at": NOW,
            }
            session.add(InvoiceRow(**row))
            await session.flush()
            event = {"at": NOW, "reference": "", "actor": "system"}
            session.add(
                InvoiceEventRow(invoice_id=invoice_id, seq=1, kind="finalised", amount_minor=due_minor, **event)
            )
            owed, revenue = receivable(owner, currency), house_account(AccountKind.REVENUE, currency)
            for account in (owed, revenue):
                await run_in_session(session, open_account_script(account, clock.now()))
            posting = Posting(f"i:{invoice_id}", owed.id, revenue.id, due_minor * 10**7, NOW, "invoice")
            await run_in_session(session, post_script(posting))
        return invoice_id

    async def pay(self, amount_minor: int, *invoice_ids: str, **changes: Any) -> Payment:
        fields: dict[str, Any] = {
            "organisation_id": self.organisation_id,
            "method": "other",
            "reference": self.tenants.ids.new(),
            "currency": "EUR",
            "amount_minor": amount_minor,
            "received_on": date(2026, 11, 24),
            "invoice_ids": invoice_ids,
        }
        async with self.database.transaction() as session:
            new = NewPayment(**(fields | changes))
            return await record_payment(session, self.operator, new, self.tenants.ids, self.tenants.clock)

    async def state(self, invoice_id: str) -> str:
        async with self.database.reading() as session:
            row = await session.get(InvoiceRow, invoice_id)
            assert row is not None
            return row.state

    async def owed_minor(self) -> int:
        """What the customer owes by the ledger; below nothing it has credit."""
        async with self.database.reading() as session:
            balances = await accounts_of(session, self.organisation_id)
        return -sum(each.credit_nano for each in balances if each.account.kind is AccountKind.RECEIVABLE) // 10**7

    async def snapshot(self) -> tuple[object, ...]:
        """Everything that a refusal must leave as it is: accounts, and how many rows there are."""
        tables = ("payments", "payment_allocations", "payment_refunds", "invoice_events", "ledger_transfers")
        async with self.database.reading() as session:
            counts = [(await session.execute(text(f"SELECT count(*) FROM {name}"))).scalar() for name in tables]
            return (*counts, [replace(each) for each in await all_accounts(session)])

    async def sound(self) -> bool:
        async with self.database.reading() as session:
            return await check_books(session) == []


async def invoiced(database: Database) -> Invoiced:
    tenants = await two_tenants(database)
    tenants.clock.current += timedelta(days=1)
    return Invoiced(tenants, replace(SYSTEM, organisation_id=tenants.operator.organisation_id))


def booking(key: str, amount_minor: int, remittance: str = "", **changes: Any) -> StatementEntry:
    fields: dict[str, Any] = {
        "key": key,
        "account_iban": "FR7630006000011234567890189",
        "currency": "EUR",
        "amount_minor": amount_minor,
        "booked_on": date(2026, 12, 9),
        "valued_on": date(2026, 12, 9),
        "debtor_name": "Banque",
        "debtor_iban": "FR1420041010050500013M02606",
        "creditor_reference": "",
        "end_to_end_id": "",
        "remittance": remittance,
        "reversal": False,
    }
    return StatementEntry(**(fields | changes))
