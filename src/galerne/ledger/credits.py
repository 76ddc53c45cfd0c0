"""Prepaid credit: money that came in becomes what an organisation can spend."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, run_in_session
from galerne.ledger.accounts import open_account_script
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import AccountKind, customer_account, house_account
from galerne.ledger.transfers import Posting, post_script

_LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Credit to give; `id` tells one grant from another, so that one that is asked for twice is given once."""

    id: str
    amount_nano: int
    currency: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("id", "reason"):
            text = getattr(self, name)
            if not (0 < len(text) <= _LONGEST_TEXT and text.isprintable()):
                raise BadRequest(f"{name}: 1 to {_LONGEST_TEXT} printable characters.", param=name)


async def grant_credit(session: AsyncSession, actor: Actor, grant: Grant, clock: Clock) -> bool:
    """Credit the organisation of `actor`, opening the accounts that it needs; journalled.

    False if it was granted before with the same content, and nothing changed; `Conflict` if with other content.
    """
    at = clock.now()
    prepaid = customer_account(AccountKind.PREPAID, actor.organisation_id, grant.currency)
    cash = house_account(AccountKind.CASH_CLEARING, grant.currency)
    # Revenue too, which is what the credit will be spent into.
    for account in sorted(
        (prepaid, cash, house_account(AccountKind.REVENUE, grant.currency)), key=lambda each: each.id
    ):
        await run_in_session(session, open_account_script(account, at))
    posting = Posting(grant.id, cash.id, prepaid.id, grant.amount_nano, at, grant.reason)
    if not await run_in_session(session, post_script(posting)):
        return False
    await append(session, [_entry(actor, grant, prepaid.id, at)])
    return True


def _entry(actor: Actor, grant: Grant, account_id: str, at: datetime) -> Entry:
    # The amount as text: a journalled number ends at 2^53, which is 9 million of a currency in nano-units.
    return Entry(
        action="credit.granted",
        actor=actor,
        resource=f"account:{account_id}",
        outcome="done",
        at=at,
        detail={"transfer": grant.id, "amount": amount_text(grant.amount_nano), "currency": grant.currency},
    )
