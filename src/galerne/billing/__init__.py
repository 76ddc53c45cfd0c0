"""Billing: plans, and the price book. What was consumed is metering's business, what is owed the ledger's."""

from galerne.billing.tables import PlanRow, RateRow

__all__ = ["PlanRow", "RateRow"]
