"""Billing: plans, and the price book. What was consumed is metering's business, what is owed the ledger's."""

from galerne.billing.plans import TIERS, Plan, Tier
from galerne.billing.prices import NewRates, decimal_of, nano_of
from galerne.billing.pricing import PPM, TIER_MODIFIERS_PPM, Rates, ServiceTier, TokenClass, cost_nano, most_nano
from galerne.billing.routes import router
from galerne.billing.schemas import plan_fields, price_fields
from galerne.billing.service import find_plan, list_plans, list_rates, rates_of, set_rates

__all__ = [
    "PPM",
    "TIERS",
    "TIER_MODIFIERS_PPM",
    "NewRates",
    "Plan",
    "Rates",
    "ServiceTier",
    "Tier",
    "TokenClass",
    "cost_nano",
    "decimal_of",
    "find_plan",
    "list_plans",
    "list_rates",
    "most_nano",
    "nano_of",
    "plan_fields",
    "price_fields",
    "rates_of",
    "router",
    "set_rates",
]
