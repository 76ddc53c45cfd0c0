"""What single requests were charged: the settlements that bear their ids, or postings where the hold was gone."""

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.ledger.chart import TransferKind
from galerne.ledger.tables import TransferRow

_CHARGES = (str(TransferKind.SETTLE), str(TransferKind.POST))


async def settled_by(session: AsyncSession, account_id: str, request_ids: Collection[str]) -> int:
    """What these requests, a few thousand at most, were charged to the account, in nano-units."""
    query = select(func.sum(TransferRow.amount_nano)).where(
        TransferRow.id.in_(request_ids),
        TransferRow.debit_account_id == account_id,
        TransferRow.kind.in_(_CHARGES),
    )
    return int(await session.scalar(query) or 0)
