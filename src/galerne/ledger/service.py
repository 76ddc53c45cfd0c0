"""The ledger's use cases in a session: the scripts with errors where they have values, and what can be read."""

from typing import Any, cast

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel import BadRequest, NotFound, run_in_session
from galerne.ledger.accounts import Balance, balance_of
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import InsufficientFunds, TransferKind
from galerne.ledger.holds import Granted, NewHold, Refused, hold_script
from galerne.ledger.tables import AccountRow, TransferRow
from galerne.ledger.transfers import Transfer

_ACCOUNTS = cast(SqlTable, AccountRow.__table__)
_BALANCE_COLUMNS = [column for column in _ACCOUNTS.columns if column.name != "created_at"]


async def hold(session: AsyncSession, new: NewHold) -> Granted:
    """Like `hold_script`, but raises `InsufficientFunds` where that refuses."""
    answer = await run_in_session(session, hold_script(new))
    if isinstance(answer, Refused):
        raise InsufficientFunds(f"'{new.debit_account_id}' has {amount_text(answer.available_nano)} left.")
    return answer


async def balance(session: AsyncSession, account_id: str) -> Balance:
    """One account's balance; raises `NotFound`."""
    found = await _balances(session, select(*_BALANCE_COLUMNS).where(AccountRow.id == account_id))
    if not found:
        raise NotFound(f"The account '{account_id}' is not open.")
    return found[0]


async def accounts_of(session: AsyncSession, organisation_id: str | None) -> list[Balance]:
    """The balances of an organisation's accounts, or of the house's own for None, by id."""
    return await _balances(session, select(*_BALANCE_COLUMNS).where(AccountRow.organisation_id == organisation_id))


async def all_accounts(session: AsyncSession) -> list[Balance]:
    """Every account's balance, by id: for the operator alone."""
    return await _balances(session, select(*_BALANCE_COLUMNS))


async def transfers_of(
    session: AsyncSession, account_id: str, limit: int = 100, after: str | None = None
) -> list[Transfer]:
    """At most `limit` transfers of one account, newest first, older than the transfer `after`.

    An unknown `after` raises `BadRequest`.
    """
    older: list[ColumnElement[bool]] = []
    if after is not None:
        at = (await session.execute(select(TransferRow.at).where(TransferRow.id == after))).scalar_one_or_none()
        if at is None:
            raise BadRequest(f"There is no transfer '{after}'; take `after` from the page before.", param="after")
        older = [TransferRow.at <= at, or_(TransferRow.at < at, TransferRow.id < after)]
    is_its = or_(TransferRow.debit_account_id == account_id, TransferRow.credit_account_id == account_id)
    query = select(TransferRow).where(is_its, *older).order_by(TransferRow.at.desc(), TransferRow.id.desc())
    rows = (await session.execute(query.limit(limit))).scalars()
    return [_transfer(row) for row in rows]


def _transfer(row: TransferRow) -> Transfer:
    sides = (row.debit_account_id, row.credit_account_id)
    return Transfer(row.id, TransferKind(row.kind), *sides, row.amount_nano, row.hold_id, row.reason, row.at)


async def _balances(session: AsyncSession, query: Select[Any]) -> list[Balance]:
    return [balance_of(row) for row in (await session.execute(query.order_by(AccountRow.id))).all()]
