"""Use cases of cards: a wish to pay, what Stripe tells of it, money given back, and the secrets. None of them commits.

What Stripe tells is brought into our books as the difference to what they say: told twice, or late, it changes nothing.
"""

from dataclasses import dataclass, field, replace

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.payments.paid_invoices import courses_of, lock_invoices
from galerne.billing.payments.payment import NewPayment, NewRefund, Payment, taken_back
from galerne.billing.payments.service import find_payment, record_payment, refund_payment
from galerne.billing.payments.stripe.events import CardNews, StripeEvent
from galerne.billing.payments.stripe.tables import CardEventRow, CardIntentRow, PaymentSecretRow
from galerne.billing.payments.tables import PaymentRow
from galerne.billing.subscriptions import find_subscription, payment_failed
from galerne.governance import SYSTEM, Actor, Permission, require
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Ids, NotFound, Unavailable
from galerne.kernel.sealing import Sealer

_API_KEY, _WEBHOOK = "stripe.api_key", "stripe.webhook_secret"


@dataclass(frozen=True, slots=True)
class CardIntent:
    """A wish to pay an invoice by card, in minor units of `currency`."""

    id: str
    organisation_id: str
    invoice_id: str
    currency: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class StripeSecrets:
    """What Stripe knows us by, and we it; never shown, never logged."""

    api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        for value in (self.api_key, self.webhook_secret):
            if not (8 <= len(value) <= 500 and value.isascii() and value.isprintable() and " " not in value):
                raise BadRequest("This is no key of Stripe's: they begin with sk_ or rk_, and with whsec_.")


async def set_stripe_secrets(
    session: AsyncSession, actor: Actor, secrets: StripeSecrets, sealer: Sealer, clock: Clock
) -> None:
    """Keep the secrets, sealed, instead of those before; that it happened is journalled, they are not."""
    require(actor, Permission.PAYMENTS_MANAGE)
    now = clock.now()
    for name, value in ((_API_KEY, secrets.api_key), (_WEBHOOK, secrets.webhook_secret)):
        row = await session.get(PaymentSecretRow, name)
        sealed = sealer.seal(value.encode(), f"payment_secrets.{name}")
        if row is None:
            session.add(PaymentSecretRow(name=name, sealed=sealed, updated_at=now))
        else:
            row.sealed, row.updated_at = sealed, now
    await session.flush()
    entry = Entry(action="payments.secrets_set", actor=actor, resource="processor:stripe", outcome="done", at=now)
    await append(session, [entry])


async def stripe_secrets(session: AsyncSession, sealer: Sealer) -> StripeSecrets:
    """The secrets; `Unavailable` (`cards_not_set_up`) where there are none."""
    found: list[str] = []
    for name in (_API_KEY, _WEBHOOK):
        row = await session.get(PaymentSecretRow, name)
        if row is None:
            raise Unavailable("Cards are not set up: galerne payments stripe.", code="cards_not_set_up")
        found.append(sealer.open(row.sealed, f"payment_secrets.{name}").decode())
    return StripeSecrets(*found)


async def wish_to_pay(
    session: AsyncSession, actor: Actor, invoice_id: str, request_id: str, ids: Ids, clock: Clock
) -> CardIntent:
    """The wish to pay what is open of one of the actor's invoices by card; the same request id is the same wish.

    `Conflict` (`idempotency_conflict`) for another invoice under it, `Conflict` (`nothing_open`) for one that is paid.
    """
    require(actor, Permission.BILLING_MANAGE)
    if not (0 < len(request_id) <= 100 and request_id.isprintable()):
        raise BadRequest("request_id: 1 to 100 printable characters.", param="request_id")
    row = CardIntentRow
    query = select(row).where(row.organisation_id == actor.organisation_id, row.request_id == request_id)
    earlier = await session.scalar(query)
    if earlier is not None:
        if earlier.invoice_id != invoice_id:
            raise Conflict("This request id was used for another invoice.", code="idempotency_conflict")
        return _intent(earlier)
    invoice = (await lock_invoices(session, [invoice_id]))[invoice_id]
    if invoice.organisation_id != actor.organisation_id:
        raise NotFound("There is no such invoice.", code="invoice_not_found", param="invoice_id")
    open_minor = (await courses_of(session, [invoice_id]))[invoice_id].open_minor
    if invoice.number is None or open_minor <= 0:
        raise Conflict("Nothing of this invoice is open.", code="nothing_open")
    new = CardIntentRow(
        id=ids.new(),
        organisation_id=actor.organisation_id,
        invoice_id=invoice_id,
        currency=invoice.currency,
        amount_minor=open_minor,
        request_id=request_id,
        created_at=clock.now(),
    )
    session.add(new)
    await session.flush()
    return _intent(new)


async def hear(session: AsyncSession, event: StripeEvent, ids: Ids, clock: Clock) -> bool:
    """Bring what a webhook tells into the books; False if it was heard before, or does not concern us."""
    try:
        async with session.begin_nested():
            session.add(CardEventRow(id=event.id[:255], type=event.type[:100], received_at=clock.now()))
    except IntegrityError:
        return False
    return event.news is not None and await bring_in(session, event.news, ids, clock)


async def bring_in(session: AsyncSession, news: CardNews, ids: Ids, clock: Clock) -> bool:
    """Bring what is known of a charge into the books; False if they say it already, or the charge is not ours."""
    intent = await session.get(CardIntentRow, news.intent_id) if news.intent_id else None
    if intent is None:
        return False
    system = replace(SYSTEM, organisation_id=intent.organisation_id)
    payment = await _payment_of(session, news.processor_id)
    if news.kind == "failed":
        return payment is None and await _attempt_failed(session, intent, news, ids, clock)
    changed = False
    if payment is None and news.captured_minor:
        payment = await _captured(session, system, intent, news, (ids, clock))
        changed = True
    if payment is not None and news.refunded_minor > payment.refunded_minor:
        await refund_payment(session, system, payment.id, _told_refund(payment, news), ids, clock)
        changed = True
    return changed


async def check_refund(session: AsyncSession, actor: Actor, payment_id: str, amount_minor: int) -> Payment:
    """The card payment, if so much can be given back of it; errors as `refund_payment`, before Stripe is asked."""
    require(actor, Permission.PAYMENTS_MANAGE)
    payment = await find_payment(session, payment_id)
    if payment.method != "card":
        raise BadRequest("This was not paid by card; give it back over the bank and record that.", param="payment_id")
    taken_back(payment, amount_minor)
    return payment


async def _captured(
    session: AsyncSession, system: Actor, intent: CardIntentRow, news: CardNews, parts: tuple[Ids, Clock]
) -> Payment:
    ids, clock = parts
    new = NewPayment(
        organisation_id=intent.organisation_id,
        method="card",
        reference=news.processor_id,
        currency=news.currency,
        amount_minor=news.captured_minor,
        received_on=clock.now().date(),
        invoice_ids=(intent.invoice_id,) if news.currency == intent.currency else (),
    )
    return await record_payment(session, system, new, ids, clock)


async def _payment_of(session: AsyncSession, processor_id: str) -> Payment | None:
    query = select(PaymentRow.id).where(PaymentRow.method == "card", PaymentRow.reference == processor_id)
    # The row is held, so that of two that tell of one charge the second sees what the first wrote.
    found = await session.scalar(query.with_for_update())
    return None if found is None else await find_payment(session, found)


async def _attempt_failed(session: AsyncSession, intent: CardIntentRow, news: CardNews, ids: Ids, clock: Clock) -> bool:
    try:
        subscription = await find_subscription(session, intent.organisation_id)
    except NotFound:
        return False
    await payment_failed(session, subscription.id, intent.invoice_id, news.attempt_id, ids, clock)
    return True


def _told_refund(payment: Payment, news: CardNews) -> NewRefund:
    return NewRefund(
        request_id=f"stripe:{news.refunded_minor}",
        amount_minor=news.refunded_minor - payment.refunded_minor,
        reason="given back by card",
        reference=news.processor_id,
    )


def _intent(row: CardIntentRow) -> CardIntent:
    return CardIntent(row.id, row.organisation_id, row.invoice_id, row.currency, row.amount_minor)
