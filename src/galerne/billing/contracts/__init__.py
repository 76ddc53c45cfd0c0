"""Contracts: a term, what is committed to be spent in it, and what that makes due."""

from galerne.billing.contracts.drawdown import Used, Version, contract_charges, drawn
from galerne.billing.contracts.effect import Effect, effect_of
from galerne.billing.contracts.routes import router as contracts_router
from galerne.billing.contracts.schemas import TermsIn, contract_fields, effect_fields
from galerne.billing.contracts.service import (
    ContractVersion,
    amend_contract,
    charges_of_contract,
    contract_versions,
    contracts_to_renew,
    draft_contract,
    list_contracts,
    preview_amendment,
    renew_contract,
    renew_due,
    sign_contract,
)
from galerne.billing.contracts.terms import Commitment, ContractTerms, Instalment, Renewal
from galerne.billing.contracts.usage import contract_usage

__all__ = [
    "Commitment",
    "ContractTerms",
    "ContractVersion",
    "Effect",
    "Instalment",
    "Renewal",
    "TermsIn",
    "Used",
    "Version",
    "amend_contract",
    "charges_of_contract",
    "contract_charges",
    "contract_fields",
    "contract_usage",
    "contract_versions",
    "contracts_router",
    "contracts_to_renew",
    "draft_contract",
    "drawn",
    "effect_fields",
    "effect_of",
    "list_contracts",
    "preview_amendment",
    "renew_contract",
    "renew_due",
    "sign_contract",
]
