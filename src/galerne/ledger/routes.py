"""HTTP for balances and credit: an organisation sees what it has, the operator grants, ends and corrects."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.identity import find_organisation
from galerne.kernel import Forbidden
from galerne.kernel.web import Reading, RequestClock, Text, Transaction
from galerne.ledger.credits import correct_charge, grant_credit, lots_of, void_lot
from galerne.ledger.schemas import (
    AccountOut,
    BalanceOut,
    CorrectionIn,
    CorrectionOut,
    GrantIn,
    GrantOut,
    LapseList,
    LapseOut,
    LotList,
    LotOut,
    StatementOut,
    VoidIn,
    balance_fields,
    lapse_fields,
    lot_fields,
    statement_fields,
)
from galerne.ledger.service import accounts_of
from galerne.ledger.statements import statement_of

router = APIRouter(tags=["Billing"])

BillingReader = Annotated[Actor, requires(Permission.BILLING_READ)]
CreditAdmin = Annotated[Actor, requires(Permission.CREDITS_MANAGE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/v1/admin/balance")
async def read_balance(actor: BillingReader, session: Reading) -> BalanceOut:
    """Show the organisation's accounts: what they are worth, what is held, what can be spent."""
    _check_whole(actor)
    found = await accounts_of(session, actor.organisation_id)
    return BalanceOut(object="balance", data=[AccountOut.model_validate(balance_fields(each)) for each in found])


@router.get("/v1/admin/balance/{account_id}/statement")
async def read_statement(
    account_id: Text, actor: BillingReader, session: Reading, limit: Limit = 100, page: Text | None = None
) -> StatementOut:
    """Show what moved the balance of one of the organisation's accounts, the last recorded first."""
    _check_whole(actor)
    found = await statement_of(session, actor.organisation_id, account_id, limit, page)
    return StatementOut.model_validate(statement_fields(found))


@router.get("/v1/admin/credits")
async def list_lots(actor: BillingReader, session: Reading) -> LotList:
    """List the organisation's lots of credit in the order in which they are burned."""
    _check_whole(actor)
    found = await lots_of(session, actor.organisation_id)
    return LotList(object="list", data=[LotOut.model_validate(lot_fields(each)) for each in found])


@router.post("/v1/admin/credits")
async def grant(body: GrantIn, actor: CreditAdmin, session: Transaction, clock: RequestClock) -> GrantOut:
    """Grant credit to an organisation as one lot; the same id is granted once."""
    granted = await grant_credit(session, await _for(session, actor, body.organisation), body.grant(), clock)
    return GrantOut(object="grant", id=body.id, granted=granted)


@router.post("/v1/admin/credits/corrections")
async def correct(body: CorrectionIn, actor: CreditAdmin, session: Transaction, clock: RequestClock) -> CorrectionOut:
    """Give back what was charged wrongly, to the lots that paid for it."""
    there = await _for(session, actor, body.organisation)
    corrected = await correct_charge(session, there, body.correction(), clock)
    return CorrectionOut(object="correction", id=body.id, corrected=corrected)


@router.post("/v1/admin/credits/{lot_id}/void")
async def void(lot_id: Text, body: VoidIn, actor: CreditAdmin, session: Transaction, clock: RequestClock) -> LapseList:
    """End a lot; what is left of it goes back to where it came from, what is held once it is free."""
    booked = await void_lot(session, await _for(session, actor, body.organisation), lot_id, body.reason, clock)
    return LapseList(object="list", data=[LapseOut.model_validate(lapse_fields(each)) for each in booked])


def _check_whole(actor: Actor) -> None:
    if actor.workspace_id is not None:
        raise Forbidden("This key belongs to one workspace; the balance is the whole organisation's.")


async def _for(session: AsyncSession, actor: Actor, organisation_id: str) -> Actor:
    _check_whole(actor)
    found = await find_organisation(session, organisation_id)
    return replace(actor, organisation_id=found.id)
