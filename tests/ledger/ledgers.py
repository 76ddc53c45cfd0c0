"""A ledger with three accounts and money in one of them, and how tests run scripts on it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from galerne.kernel import Database, Script, Writer, run_in_session
from galerne.ledger import (
    Account,
    AccountKind,
    NewHold,
    Posting,
    Settlement,
    check_books,
    customer_account,
    house_account,
    open_account_script,
    post_script,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
PREPAID = customer_account(AccountKind.PREPAID, "org-1", "EUR")
CASH = house_account(AccountKind.CASH_CLEARING, "EUR")
REVENUE = house_account(AccountKind.REVENUE, "EUR")
DOLLARS = house_account(AccountKind.REVENUE, "USD")


async def run(database: Database, script: Script[Any]) -> Any:
    async with database.transaction() as session:
        return await run_in_session(session, script)


async def read(database: Database, sql: str, **values: Any) -> Sequence[Any]:
    async with database.reading() as session:
        return (await session.execute(text(sql), values)).all()


async def problems(database: Database) -> list[str]:
    async with database.reading() as session:
        return await check_books(session)


async def sums(database: Database, account: Account = PREPAID) -> tuple[int, ...]:
    """Debits posted and pending, credits posted and pending."""
    rows = await read(
        database,
        "SELECT debits_posted_nano, debits_pending_nano, credits_posted_nano, credits_pending_nano"
        " FROM ledger_accounts WHERE id = :id",
        id=account.id,
    )
    return tuple(rows[0])


async def fund(database: Database, amount_nano: int) -> None:
    for account in (PREPAID, CASH, REVENUE, DOLLARS):
        await run(database, open_account_script(account, NOON))
    await run(database, post_script(posting(amount_nano)))


async def fund_through(writer: Writer, amount_nano: int, *accounts: Account) -> None:
    openings = [open_account_script(account, NOON) for account in (CASH, REVENUE, *accounts)]
    await writer.run(openings)
    await writer.run(
        [post_script(Posting(f"fund:{each.id}", CASH.id, each.id, amount_nano, NOON, "paid")) for each in accounts]
    )


def posting(amount_nano: int, name: str = "payment-1", **changes: Any) -> Posting:
    fields: dict[str, Any] = {"debit_account_id": CASH.id, "credit_account_id": PREPAID.id, "reason": "paid"}
    return Posting(id=name, amount_nano=amount_nano, at=NOON, **(fields | changes))


def wish(least: int, most: int | None = None, name: str = "hold-1", **changes: Any) -> NewHold:
    fields: dict[str, Any] = {
        "debit_account_id": PREPAID.id,
        "credit_account_id": REVENUE.id,
        "holder": "gateway-1",
        "expires_at_ms": NOON_MS + 60_000,
    }
    return NewHold(id=name, least_nano=least, most_nano=most or least, at=NOON, **(fields | changes))


def settlement(name: str, amount_nano: int, hold: str = "hold-1", **changes: Any) -> Settlement:
    fields: dict[str, Any] = {"debit_account_id": PREPAID.id, "credit_account_id": REVENUE.id}
    return Settlement(id=name, hold_id=hold, amount_nano=amount_nano, at=NOON, **(fields | changes))
