"""Notices: what an organisation is told of what happened, by webhooks to addresses that it named."""

from galerne.notices.delivery import TOPICS, Delivery, DeliveryState, Endpoint, NewEndpoint
from galerne.notices.sending import Sender
from galerne.notices.service import (
    add_endpoint,
    forget_old,
    hear,
    list_deliveries,
    list_endpoints,
    remove_endpoint,
    resend,
    rotate_secret,
)

__all__ = [
    "TOPICS",
    "Delivery",
    "DeliveryState",
    "Endpoint",
    "NewEndpoint",
    "Sender",
    "add_endpoint",
    "forget_old",
    "hear",
    "list_deliveries",
    "list_endpoints",
    "remove_endpoint",
    "resend",
    "rotate_secret",
]
