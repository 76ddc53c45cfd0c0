"""HTTP for balances: an organisation sees what it has."""

from typing import Annotated

from fastapi import APIRouter

from galerne.governance import Actor, Permission, requires
from galerne.kernel import Forbidden
from galerne.kernel.web import Reading
from galerne.ledger.schemas import AccountOut, BalanceOut, balance_fields
from galerne.ledger.service import accounts_of

router = APIRouter(tags=["Billing"])

BillingReader = Annotated[Actor, requires(Permission.BILLING_READ)]


@router.get("/v1/admin/balance")
async def read_balance(actor: BillingReader, session: Reading) -> BalanceOut:
    """Show the organisation's accounts: what they are worth, what is held, what can be spent."""
    if actor.workspace_id is not None:
        raise Forbidden("This key belongs to one workspace; the balance is the whole organisation's.")
    found = await accounts_of(session, actor.organisation_id)
    return BalanceOut(object="balance", data=[AccountOut.model_validate(balance_fields(each)) for each in found])
