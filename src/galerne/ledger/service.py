"""The ledger's use cases in a session: the scripts with errors where they have values, and what can be read."""

from typing import Any, cast

from sqlalchemy import Select, and_, or_, select
from sqlalchemy import Table as SqlTable
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel import Clock, Database, GalerneError, InvariantViolated, NotFound, run_in_session
from galerne.ledger.accounts import Balance, balance_of
from galerne.ledger.allocation import USUAL_BATCH, allocate_script, behind_script
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import AccountKind, InsufficientFunds
from galerne.ledger.credits import sweep_credits
from galerne.ledger.holds import Granted, NewHold, Refused, hold_script
from galerne.ledger.lapses import Lapse
from galerne.ledger.lot_tables import LotEndRow, LotRow
from galerne.ledger.tables import AccountRow

_TROUBLE = (GalerneError, InvariantViolated, IntegrityError)
"""What may be wrong with one account alone."""
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


async def currencies_by_organisation(session: AsyncSession, kind: AccountKind) -> dict[str, tuple[str, ...]]:
    """In which currencies each organisation has accounts of a kind, in the order of `accounts_of`."""
    query = select(AccountRow.organisation_id, AccountRow.currency).where(AccountRow.kind == str(kind))
    found: dict[str, tuple[str, ...]] = {}
    for organisation_id, currency in await session.execute(query.order_by(AccountRow.id)):
        if organisation_id is not None:
            found[organisation_id] = (*found.get(organisation_id, ()), currency)
    return found


async def burn_lots(database: Database, account_id: str | None = None, batch: int = USUAL_BATCH) -> int:
    """Burn all that was spent onto lots, of one account or of every one that is behind; how many transfers that was.

    A transaction for each batch, so that it may be killed and run again, and several may run at once. On an account's
    trouble it goes on with the others, and raises it at the end: whose lots do not add up is left as it is.
    """
    if account_id is None:
        async with database.transaction() as session:
            names = await run_in_session(session, behind_script())
    else:
        names = [account_id]
    count, failures = 0, list[Exception]()
    for name in names:
        try:
            more = True
            while more:
                async with database.transaction() as session:
                    done = await run_in_session(session, allocate_script(name, batch))
                count, more = count + done.transfers, done.more
        except _TROUBLE as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return count


async def sweep_all(database: Database, clock: Clock) -> list[Lapse]:
    """Begin and end lots of every account where one is due; a transaction for each account.

    On an account's trouble it goes on with the others, and raises it at the end.
    """
    now = clock.now()
    begins = and_(LotRow.granted_nano == 0, LotRow.effective_at <= now, LotEndRow.at.is_(None))
    left = LotRow.granted_nano + LotRow.restored_nano - LotRow.burned_nano - LotRow.expired_nano - LotRow.voided_nano
    ends = and_(left > 0, or_(LotRow.expires_at <= now, LotEndRow.at.is_not(None)))
    query = select(LotRow.account_id).distinct().outerjoin(LotEndRow, LotEndRow.lot_id == LotRow.id)
    async with database.reading() as session:
        names = sorted((await session.scalars(query.where(or_(begins, ends)))).all())
    lapses, failures = list[Lapse](), list[Exception]()
    for name in names:
        try:
            await burn_lots(database, name)
            async with database.transaction() as session:
                lapses += await sweep_credits(session, name, clock)
        except _TROUBLE as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return lapses


async def _balances(session: AsyncSession, query: Select[Any]) -> list[Balance]:
    return [balance_of(row) for row in (await session.execute(query.order_by(AccountRow.id))).all()]
