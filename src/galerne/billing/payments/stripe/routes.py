"""HTTP for cards: a customer asks to pay, Stripe tells what happened, the operator gives back.

Stripe is asked between two transactions: none is open while we wait for it.
"""

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from galerne.billing.documents.amounts import from_minor
from galerne.billing.payments.schemas import PaymentOut, minor_of, payment_fields
from galerne.billing.payments.service import find_payment
from galerne.billing.payments.stripe.calls import StripeCalls
from galerne.billing.payments.stripe.events import INTENT, charge_news, read_event, to_stripe
from galerne.billing.payments.stripe.service import (
    StripeSecrets,
    bring_in,
    check_refund,
    hear,
    stripe_secrets,
    wish_to_pay,
)
from galerne.billing.payments.stripe.signature import verify_signature
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import Database, Settings, Unavailable
from galerne.kernel.sealing import open_sealer
from galerne.kernel.web import RequestClock, RequestIds, Text

WEBHOOK_PATH = "/v1/webhooks/stripe"
"""Where Stripe tells us; it has no key of ours, its signature is what counts."""

router = APIRouter(tags=["Payments"])

BillingAdmin = Annotated[Actor, requires(Permission.BILLING_MANAGE)]
PaymentAdmin = Annotated[Actor, requires(Permission.PAYMENTS_MANAGE)]


class CardIn(BaseModel):
    """Which invoice to pay by card; the same `request_id` asks once."""

    model_config = ConfigDict(extra="forbid")

    invoice_id: Text
    request_id: Text


class CardOut(BaseModel):
    """What the browser needs to confirm the payment with Stripe; it is paid once Stripe says so."""

    object: Literal["card_payment"]
    id: str
    invoice_id: str
    amount: str
    currency: str
    client_secret: str


class CardRefundIn(BaseModel):
    """How much to give back by card; the same `request_id` gives back once."""

    model_config = ConfigDict(extra="forbid")

    request_id: Text
    amount: Text


@router.post("/v1/payments/card", status_code=201)
async def pay_by_card(
    body: CardIn, request: Request, actor: BillingAdmin, ids: RequestIds, clock: RequestClock
) -> CardOut:
    """Ask to pay what is open of an invoice by card."""
    database, settings = _parts(request)
    secrets = await _secrets(database, settings)
    async with database.transaction() as session:
        intent = await wish_to_pay(session, actor, body.invoice_id, body.request_id, ids, clock)
    amount = to_stripe(intent.amount_minor, intent.currency)
    calls = StripeCalls(settings.stripe_url, secrets.api_key)
    made = await calls.create_intent(amount, intent.currency, {INTENT: intent.id}, f"galerne-intent-{intent.id}")
    return CardOut(
        object="card_payment",
        id=str(made.get("id", "")),
        invoice_id=intent.invoice_id,
        amount=str(from_minor(intent.amount_minor, intent.currency)),
        currency=intent.currency,
        client_secret=str(made.get("client_secret", "")),
    )


@router.post("/v1/admin/payments/{payment_id}/card-refunds")
async def refund_card(
    payment_id: Text,
    body: CardRefundIn,
    request: Request,
    actor: PaymentAdmin,
    ids: RequestIds,
    clock: RequestClock,
) -> PaymentOut:
    """Give a card payment back through Stripe, in part or whole, and record it; never more than was captured."""
    database, settings = _parts(request)
    secrets = await _secrets(database, settings)
    async with database.reading() as session:
        payment = await find_payment(session, payment_id)
        minor = minor_of(body.amount, payment.currency)
        payment = await check_refund(session, actor, payment_id, minor)
    calls = StripeCalls(settings.stripe_url, secrets.api_key)
    key = f"galerne-refund-{payment_id}-{body.request_id}"
    made = await calls.refund(payment.reference, to_stripe(minor, payment.currency), key)
    async with database.transaction() as session:
        await bring_in(session, charge_news(made["charge"]), ids, clock)
        return PaymentOut.model_validate(payment_fields(await find_payment(session, payment_id)))


@router.post(WEBHOOK_PATH)
async def hear_stripe(request: Request, ids: RequestIds, clock: RequestClock) -> dict[str, bool]:
    """Hear what Stripe tells, signed by it; told twice or late, it changes nothing."""
    database, settings = _parts(request)
    payload = await request.body()
    secrets = await _secrets(database, settings, calling=False)
    verify_signature(payload, request.headers.get("stripe-signature", ""), [secrets.webhook_secret], clock.now())
    event = read_event(payload)
    async with database.transaction() as session:
        return {"received": True, "changed": await hear(session, event, ids, clock)}


def _parts(request: Request) -> tuple[Database, Settings]:
    state = request.app.state
    return cast(Database, state.database), cast(Settings, state.settings)


async def _secrets(database: Database, settings: Settings, *, calling: bool = True) -> StripeSecrets:
    if settings.offline and calling:
        raise Unavailable("This installation makes no connections (GALERNE_OFFLINE).", code="offline")
    async with database.reading() as session:
        return await stripe_secrets(session, open_sealer(settings))
