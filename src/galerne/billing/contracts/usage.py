"""The usage that contracts are reckoned with: what an organisation's use in each month of the term was worth."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.charges import Period
from galerne.billing.contracts.service import ContractVersion, contract_versions
from galerne.billing.spending import spent_by_period
from galerne.governance import Actor


async def contract_usage(session: AsyncSession, actor: Actor, contract_id: str, until: datetime) -> dict[Period, int]:
    """What use was worth in each month of the contract that began before `until`, in nano-units."""
    found = await contract_versions(session, actor, contract_id)
    return await _usage(session, found[-1], until)


async def _usage(session: AsyncSession, newest: ContractVersion, until: datetime) -> dict[Period, int]:
    periods = [period for period in newest.terms.periods() if period.start < until]
    return await spent_by_period(session, newest.organisation_id, newest.terms.currency, periods)
