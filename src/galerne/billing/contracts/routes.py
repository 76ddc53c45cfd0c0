"""HTTP for contracts: an organisation reads its own, sees what an amendment costs, and signs. The operator drafts."""

from typing import Annotated

from fastapi import APIRouter, Query

from galerne.billing.contracts import service
from galerne.billing.contracts.schemas import (
    ContractList,
    ContractOut,
    EffectOut,
    PreviewIn,
    SignIn,
    contract_fields,
    effect_fields,
)
from galerne.billing.contracts.usage import contract_usage
from galerne.billing.prices.decimals import nano_of
from galerne.billing.subscriptions.schemas import ChargeList, ChargeOut, charge_fields
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel.web import Reading, RequestClock, Text, Transaction, UtcMoment

router = APIRouter(prefix="/v1/admin/contracts", tags=["Contracts"])

BillingReader = Annotated[Actor, requires(Permission.BILLING_READ, whole_organisation=True)]
BillingAdmin = Annotated[Actor, requires(Permission.BILLING_MANAGE, whole_organisation=True)]
Until = Annotated[UtcMoment | None, Query(description="What is due before that time; now, if left out.")]


@router.get("")
async def list_all_contracts(actor: BillingReader, session: Reading) -> ContractList:
    """List the organisation's contracts, each with its newest version."""
    found = await service.list_contracts(session, actor.organisation_id)
    return ContractList(object="list", data=[ContractOut.model_validate(contract_fields(each)) for each in found])


@router.get("/{contract_id}")
async def read_contract(contract_id: Text, actor: BillingReader, session: Reading) -> ContractList:
    """Show every version of a contract, drafts among them."""
    found = await service.contract_versions(session, actor, contract_id)
    return ContractList(object="list", data=[ContractOut.model_validate(contract_fields(each)) for each in found])


@router.get("/{contract_id}/charges")
async def list_contract_charges(
    contract_id: Text, actor: BillingReader, session: Reading, clock: RequestClock, until: Until = None
) -> ChargeList:
    """List what a contract has made due: instalments, usage, overage, true-ups, minimums, fees."""
    end = until or clock.now()
    usage = await contract_usage(session, actor, contract_id, end)
    charges = await service.charges_of_contract(session, actor, contract_id, usage)
    due = [charge for charge in charges if charge.due_at < end]
    return ChargeList(object="list", data=[ChargeOut.model_validate(charge_fields(each)) for each in due])


@router.post("/{contract_id}/preview")
async def preview_amendment(
    contract_id: Text, body: PreviewIn, actor: BillingReader, session: Reading, clock: RequestClock
) -> EffectOut:
    """Show what other terms would cost, month by month; nothing is written."""
    usage = await contract_usage(session, actor, contract_id, clock.now())
    forecast = nano_of(body.forecast, param="forecast")
    effect = await service.preview_amendment(session, actor, contract_id, body.terms.version(), (usage, forecast))
    return EffectOut.model_validate(effect_fields(effect))


@router.post("/{contract_id}/sign")
async def sign_contract(
    contract_id: Text, body: SignIn, actor: BillingAdmin, session: Transaction, clock: RequestClock
) -> ContractOut:
    """Sign a version: the hash says that the terms are those that were shown."""
    signature = (body.version, body.sha256, body.signed_by)
    signed = await service.sign_contract(session, actor, contract_id, signature, clock)
    return ContractOut.model_validate(contract_fields(signed))
