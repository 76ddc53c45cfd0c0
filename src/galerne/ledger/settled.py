"""What single requests were charged: the settlements that bear their ids, or postings where the hold was gone."""

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel import Query, Rows, Script, run_in_session
from galerne.ledger.chart import TransferKind
from galerne.ledger.tables import TransferRow

_CHARGES = (str(TransferKind.SETTLE), str(TransferKind.POST))
_SETTLED = "SELECT id, debit_account_id, amount_nano FROM ledger_transfers WHERE id IN :ids AND kind IN :kinds"


async def settled_by(session: AsyncSession, account_id: str, request_ids: Collection[str]) -> int:
    """What these requests, a few thousand at most, were charged to the account, in nano-units."""
    query = select(func.sum(TransferRow.amount_nano)).where(
        TransferRow.id.in_(request_ids),
        TransferRow.debit_account_id == account_id,
        TransferRow.kind.in_(_CHARGES),
    )
    return int(await session.scalar(query) or 0)


async def settlements_of(session: AsyncSession, request_ids: Collection[str]) -> list[tuple[str, str, int]]:
    """What these requests, some ten thousand at most, were charged: request, account, nano-units."""
    return [(row[0], row[1], row[2]) for row in await run_in_session(session, _settlements(request_ids))]


def _settlements(request_ids: Collection[str]) -> Script[Rows]:
    return (yield Query(_SETTLED, {"ids": list(request_ids), "kinds": list(_CHARGES)}))
