"""What a top-up's invoice brings once it is paid: its credit. Called by whoever books payments."""

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.invoices.tables import InvoiceLineRow, InvoiceRow
from galerne.governance import Actor
from galerne.kernel import Clock
from galerne.ledger import AccountKind, Grant, grant_credit, house_account


async def grant_paid_top_up(session: AsyncSession, actor: Actor, row: InvoiceRow, clock: Clock) -> bool:
    """Grant what a top-up that is paid has sold, once; False for other invoices, and if it was granted before.

    The money was deferred revenue since the invoice became final, and is the customer's credit now.
    """
    if row.purpose != "top_up" or row.state != "paid":
        return False
    query = select(InvoiceLineRow.exact_nano).where(InvoiceLineRow.invoice_id == row.id)
    grant = Grant(
        id=f"top-up:{row.id}",
        amount_nano=sum(await session.scalars(query)),
        currency=row.currency,
        reason=f"invoice {row.number}",
        source_ref=row.id,
        funding=house_account(AccountKind.DEFERRED_REVENUE, row.currency),
    )
    return await grant_credit(session, replace(actor, organisation_id=row.organisation_id), grant, clock)
