"""What Stripe tells, as far as it concerns us: a card was charged, an attempt failed, something was given back. Pure.

Webhooks come in any order and more than once. So each is read as a state, not as a step: a charge says what was
captured of it and what was given back of it in all, and an older one says less than is known already.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from galerne.kernel import BadRequest

INTENT = "galerne_intent"
"""The name in an object's metadata that says which wish of ours it belongs to."""

_MOST = 10**15
_BY_HUNDREDS = frozenset({"ISK", "UGX"})
"""Currencies without a minor unit that Stripe counts in hundredths (its table of zero-decimal currencies)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardNews:
    """What became of a payment intent: `captured_minor` and `refunded_minor` are sums since its beginning.

    `intent_id` is ours, empty where the intent was not made by us; `attempt_id` tells failed attempts apart.
    """

    kind: Literal["captured", "failed"]
    processor_id: str
    intent_id: str
    currency: str
    captured_minor: int = 0
    refunded_minor: int = 0
    attempt_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeEvent:
    """One webhook: its id, and what it tells us; None for what does not concern us."""

    id: str
    type: str
    news: CardNews | None


def read_event(payload: bytes) -> StripeEvent:
    """The event in a webhook's body, whose signature was verified; `BadRequest` for what is none."""
    try:
        body = json.loads(payload)
        event_id, kind, thing = str(body["id"]), str(body["type"]), cast(dict[str, Any], body["data"]["object"])
        return StripeEvent(id=event_id, type=kind, news=_news(kind, thing, event_id))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest("This is no event of Stripe.", code="event_invalid") from None


def charge_news(charge: Mapping[str, Any]) -> CardNews:
    """What a charge says of its intent, captured and given back in all."""
    currency = str(charge["currency"]).upper()
    return CardNews(
        kind="captured",
        processor_id=str(charge["payment_intent"]),
        intent_id=_ours(charge),
        currency=currency,
        captured_minor=from_stripe(charge["amount_captured"], currency),
        refunded_minor=from_stripe(charge["amount_refunded"], currency),
    )


def to_stripe(minor: int, currency: str) -> int:
    """Minor units as Stripe counts them."""
    return minor * 100 if currency in _BY_HUNDREDS else minor


def from_stripe(amount: object, currency: str) -> int:
    """The other way; `BadRequest` for what is no such amount."""
    if not isinstance(amount, int) or isinstance(amount, bool) or not 0 <= amount <= _MOST:
        raise BadRequest("This is no amount.", code="event_invalid")
    whole, rest = divmod(amount, 100 if currency in _BY_HUNDREDS else 1)
    if rest:
        raise BadRequest(f"{currency} has no such coins.", code="event_invalid")
    return whole


def _news(kind: str, thing: Mapping[str, Any], event_id: str) -> CardNews | None:
    if kind in ("charge.refunded", "charge.succeeded", "charge.captured"):
        return charge_news(thing) if thing.get("payment_intent") else None
    if kind not in ("payment_intent.succeeded", "payment_intent.payment_failed"):
        return None
    currency = str(thing["currency"]).upper()
    intent_id, processor_id = _ours(thing), str(thing["id"])
    if kind == "payment_intent.payment_failed":
        attempt = str(thing.get("latest_charge") or event_id)
        return CardNews(
            kind="failed", processor_id=processor_id, intent_id=intent_id, currency=currency, attempt_id=attempt
        )
    captured = from_stripe(thing["amount_received"], currency)
    return CardNews(
        kind="captured",
        processor_id=processor_id,
        intent_id=intent_id,
        currency=currency,
        captured_minor=captured,
    )


def _ours(thing: Mapping[str, Any]) -> str:
    metadata = cast(Mapping[str, Any], thing.get("metadata") or {})
    return str(metadata.get(INTENT, ""))
