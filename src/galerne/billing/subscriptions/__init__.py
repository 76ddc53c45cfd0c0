"""Subscriptions: plans with fees, who has which, and what that costs to the second."""

from galerne.billing.subscriptions.catalogue import list_plan_versions, plan_version, publish_plan
from galerne.billing.subscriptions.lifecycle import DUNNING, Subscription, WhenUnpaid
from galerne.billing.subscriptions.offers import Fee, Offer, PlanVersion, UsageWindow
from galerne.billing.subscriptions.routes import router as subscriptions_router
from galerne.billing.subscriptions.schemas import PlanIn, charge_fields, plan_version_fields, subscription_fields
from galerne.billing.subscriptions.service import (
    advance_due,
    advance_subscription,
    ask,
    due_subscriptions,
    find_subscription,
    list_subscriptions,
    organisation_charges,
    payment_failed,
    payment_received,
    subscribe,
    subscription_charges,
)
from galerne.billing.subscriptions.wishes import Ask, Order
from galerne.billing.subscriptions.wishes import What as SubscriptionWhat

__all__ = [
    "DUNNING",
    "Ask",
    "Fee",
    "Offer",
    "Order",
    "PlanIn",
    "PlanVersion",
    "Subscription",
    "SubscriptionWhat",
    "UsageWindow",
    "WhenUnpaid",
    "advance_due",
    "advance_subscription",
    "ask",
    "charge_fields",
    "due_subscriptions",
    "find_subscription",
    "list_plan_versions",
    "list_subscriptions",
    "organisation_charges",
    "payment_failed",
    "payment_received",
    "plan_version",
    "plan_version_fields",
    "publish_plan",
    "subscribe",
    "subscription_charges",
    "subscription_fields",
    "subscriptions_router",
]
