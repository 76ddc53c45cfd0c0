"""Cards through a server that speaks Stripe's wire: webhooks twice, out of order, forged; refunds; sealed secrets."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from typer.testing import CliRunner

from galerne.apps.commands import payments as payments_command
from galerne.apps.refusals import install_refusals
from galerne.billing.payments import (
    WEBHOOK_PATH,
    Payment,
    StripeSecrets,
    cards_router,
    list_payments,
    set_stripe_secrets,
)
from galerne.billing.payments.stripe.events import from_stripe, read_event, to_stripe
from galerne.billing.payments.stripe.signature import sign, verify_signature
from galerne.billing.subscriptions import Order, find_subscription, subscribe
from galerne.governance import ROLE_PERMISSIONS, Permission, Role
from galerne.kernel import BadRequest, Database, Settings
from galerne.kernel.sealing import open_sealer
from tests.billing.payments.invoiced import Invoiced, invoiced
from tests.billing.payments.stripe_server import KEY, SECRET, StripeServer, stripe_server
from tests.journal.serving import Server

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Cards:
    """Our routes, Stripe's server, and the books between them."""

    books: Invoiced
    server: Server
    stripe: StripeServer
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def wish(self, invoice_id: str, request_id: str = "k") -> Any:
        self.server.actor = replace(self.books.tenants.stranger, permissions=ROLE_PERMISSIONS[Role.BILLING])
        body = {"invoice_id": invoice_id, "request_id": request_id}
        return await self.server.client.post("/v1/payments/card", json=body)

    async def tell(self, kind: str, thing: dict[str, Any], number: int | None = None) -> Any:
        payload = self.stripe.event(kind, thing, number or next(self.numbers))
        header = sign(payload, SECRET, self.books.tenants.clock.now())
        return await self.hear(payload, header)

    async def hear(self, payload: bytes, header: str) -> Any:
        self.server.actor = replace(self.books.operator, permissions=frozenset[Permission]())
        return await self.server.client.post(WEBHOOK_PATH, content=payload, headers={"stripe-signature": header})

    async def refund(self, payment_id: str, amount: str, request_id: str = "r") -> Any:
        self.server.actor = self.books.operator
        path = f"/v1/admin/payments/{payment_id}/card-refunds"
        return await self.server.client.post(path, json={"request_id": request_id, "amount": amount})

    def captured(self, amount: int = 10_000) -> dict[str, Any]:
        self.stripe.intents["pi_1"]["amount_received"] = amount
        return self.stripe.intents["pi_1"]

    async def payments(self) -> list[Payment]:
        async with self.books.database.reading() as session:
            return await list_payments(session, self.books.organisation_id)


@pytest.fixture
async def cards(database: Database, tmp_path: Path) -> AsyncGenerator[Cards]:
    books = await invoiced(database)
    async with stripe_server() as stripe:
        settings = Settings(data=tmp_path, stripe_url=stripe.url, offline=False)
        async with database.transaction() as session:
            secrets = StripeSecrets(KEY, SECRET)
            await set_stripe_secrets(session, books.operator, secrets, open_sealer(settings), books.tenants.clock)
        server = Server(cards_router, database, books.tenants.clock, books.operator)
        install_refusals(server.app)
        server.app.state.settings = settings
        async with server.client:
            yield Cards(books, server, stripe)


async def test_a_card_pays_an_invoice_once_stripe_says_so(cards: Cards) -> None:
    invoice = await cards.books.invoice("FR-2026-1")
    asked = await cards.wish(invoice)
    assert (asked.status_code, asked.json()["client_secret"]) == (201, "pi_1_secret_x")
    assert await cards.books.state(invoice) == "final"
    path, form, headers = cards.stripe.asked[0]
    assert (path, form["amount"], form["currency"]) == ("/v1/payment_intents", "10000", "eur")
    assert headers["idempotency-key"].startswith("galerne-intent-")
    assert (await cards.tell("payment_intent.succeeded", cards.captured())).json() == {
        "received": True,
        "changed": True,
    }
    assert (await cards.books.state(invoice), await cards.books.owed_minor()) == ("paid", 0)
    assert await cards.books.sound()
    assert (await cards.wish(invoice, "later")).json()["error"]["code"] == "nothing_open"


async def test_the_same_wish_is_one_intent_and_another_invoice_under_it_is_refused(cards: Cards) -> None:
    invoice, other = await cards.books.invoice("FR-2026-1"), await cards.books.invoice("FR-2026-2")
    assert (await cards.wish(invoice)).json() == (await cards.wish(invoice)).json()
    assert len(cards.stripe.intents) == 1
    refused = await cards.wish(other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_conflict")
    foreign = await cards.books.invoice("FR-2026-3", owner=cards.books.operator.organisation_id)
    assert (await cards.wish(foreign, "f")).status_code == 404


async def test_webhooks_twice_and_out_of_order_come_to_the_same_books(cards: Cards) -> None:
    invoice = await cards.books.invoice("FR-2026-1")
    await cards.wish(invoice)
    paid = dict(cards.captured())
    first, second = cards.stripe.charge("pi_1"), cards.stripe.charge("pi_1")
    first["amount_refunded"], second["amount_refunded"] = 1_000, 3_000
    told = [("charge.refunded", second, 9), ("payment_intent.succeeded", paid, 7), ("charge.refunded", first, 8)]
    answers = [await cards.tell(*each) for each in [*told, *told]]
    assert [each.status_code for each in answers] == [200] * 6
    assert [each.json()["changed"] for each in answers] == [True, False, False, False, False, False]
    failed = await cards.tell("payment_intent.payment_failed", paid)
    assert failed.json()["changed"] is False
    (payment,) = await cards.payments()
    assert (payment.amount_minor, payment.refunded_minor) == (10_000, 3_000)
    assert (await cards.books.state(invoice), await cards.books.owed_minor()) == ("final", 3_000)
    assert await cards.books.sound()


async def test_webhooks_at_once_count_once(cards: Cards) -> None:
    await cards.wish(await cards.books.invoice("FR-2026-1"))
    paid = cards.captured()
    answers = await asyncio.gather(*(cards.tell("payment_intent.succeeded", paid, number) for number in (1, 1, 2, 3)))
    assert {each.status_code for each in answers} <= {200, 409}
    assert [each.amount_minor for each in await cards.payments()] == [10_000]
    assert await cards.books.owed_minor() == 0


async def test_a_forged_old_or_altered_webhook_is_refused_and_the_books_stay(cards: Cards) -> None:
    await cards.wish(await cards.books.invoice("FR-2026-1"))
    before, now = await cards.books.snapshot(), cards.books.tenants.clock.now()
    payload = cards.stripe.event("payment_intent.succeeded", cards.captured(), 1)
    good = sign(payload, SECRET, now)
    bad = {
        "another secret": (payload, sign(payload, "whsec_other", now)),
        "altered": (payload.replace(b"10000", b"99999"), good),
        "respaced": (json.dumps(json.loads(payload), separators=(",", ":")).encode(), good),
        "old": (payload, sign(payload, SECRET, now - timedelta(seconds=301))),
        "from the future": (payload, sign(payload, SECRET, now + timedelta(seconds=301))),
        "none": (payload, ""),
        "no time": (payload, good.split(",")[1]),
        "another scheme": (payload, good.replace("v1=", "v0=")),
    }
    for what, (body, header) in bad.items():
        answer = await cards.hear(body, header)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "signature_invalid"), what
    assert await cards.books.snapshot() == before
    for body in (b"", b"[]", b'{"id": 1}', b'{"id": "e", "type": "charge.refunded", "data": {"object": 5}}'):
        answer = await cards.hear(body, sign(body, SECRET, now))
        assert answer.status_code == 400
    assert (await cards.hear(payload, good)).json()["changed"] is True


async def test_what_was_not_asked_by_us_concerns_us_not(cards: Cards) -> None:
    strange: dict[str, Any] = {"id": "pi_x", "currency": "eur", "amount_received": 5, "metadata": {}}
    named: dict[str, Any] = strange | {"metadata": {"galerne_intent": "unheard-of"}}
    for number, thing in enumerate((strange, named, strange | {"metadata": None}), 1):
        assert (await cards.tell("payment_intent.succeeded", thing, number)).json()["changed"] is False
    assert (await cards.tell("customer.created", {"id": "cus_1"})).json()["changed"] is False
    assert await cards.payments() == []


async def test_a_refund_goes_through_stripe_once_and_never_above_the_capture(cards: Cards) -> None:
    await cards.wish(await cards.books.invoice("FR-2026-1"))
    await cards.tell("payment_intent.succeeded", cards.captured())
    (payment,) = await cards.payments()
    asked = len(cards.stripe.asked)
    above = await cards.refund(payment.id, "100.01")
    assert (above.json()["error"]["code"], len(cards.stripe.asked)) == ("refund_above_capture", asked)
    done = [await cards.refund(payment.id, "40.00") for _ in range(2)]
    assert [each.json()["refunded"] for each in done] == ["40.00", "40.00"]
    other = await cards.refund(payment.id, "41.00")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "card_refused")
    assert (await cards.tell("charge.refunded", cards.stripe.charge("pi_1"))).json()["changed"] is False
    assert (await cards.payments())[0].refunded_minor == 4_000
    cards.stripe.broken = True
    assert (await cards.refund(payment.id, "1.00", "r2")).status_code == 502
    assert (await cards.payments())[0].refunded_minor == 4_000
    assert await cards.books.sound()


async def test_a_failed_attempt_begins_dunning_and_a_paid_one_ends_it(cards: Cards) -> None:
    tenants, invoice = cards.books.tenants, await cards.books.invoice("FR-2026-1")
    async with tenants.database.transaction() as session:
        order = Order(plan_id="pro", interval="month", currency="EUR", trial=False)
        await subscribe(session, tenants.stranger, order, tenants.ids, tenants.clock)

    async def status() -> str:
        async with tenants.database.reading() as session:
            return (await find_subscription(session, cards.books.organisation_id)).status

    await cards.wish(invoice)
    failing = cards.stripe.intents["pi_1"] | {"latest_charge": "ch_1"}
    assert (await cards.tell("payment_intent.payment_failed", failing)).json()["changed"] is True
    assert await status() == "past_due"
    await cards.tell("payment_intent.succeeded", cards.captured())
    assert await status() == "active"


async def test_the_secrets_are_sealed_and_nowhere_in_clear(cards: Cards) -> None:
    async with cards.books.database.reading() as session:
        sealed = [bytes(each) for each in (await session.execute(text("SELECT sealed FROM payment_secrets"))).scalars()]
        leaves = str((await session.execute(text("SELECT * FROM journal_leaves"))).all())
    assert len(sealed) == 2
    assert not any(KEY.encode() in each or SECRET.encode() in each for each in sealed)
    assert KEY not in leaves
    assert KEY not in repr(StripeSecrets(KEY, SECRET))
    assert len(await cards.books.tenants.journal("payments.secrets_set")) == 1


async def test_without_secrets_or_offline_cards_say_so(cards: Cards, tmp_path: Path) -> None:
    invoice = await cards.books.invoice("FR-2026-1")
    cards.server.app.state.settings = Settings(data=tmp_path, offline=True)
    assert (await cards.wish(invoice)).json()["error"]["code"] == "offline"
    cards.server.app.state.settings = Settings(data=tmp_path, stripe_url="http://127.0.0.1:9", offline=False)
    assert (await cards.wish(invoice)).json()["error"]["code"] == "processor_unreachable"
    async with cards.books.database.transaction() as session:
        await session.execute(text("DELETE FROM payment_secrets"))
    assert (await cards.wish(invoice)).json()["error"]["code"] == "cards_not_set_up"


def test_the_command_reads_the_secrets_from_standard_input(cards: Cards, database_url: str, tmp_path: Path) -> None:
    environment = {"GALERNE_DATABASE_URL": database_url, "GALERNE_DATA": str(tmp_path)}
    run = CliRunner().invoke
    shown = run(payments_command.app, ["stripe"], input=f"{KEY}\n{SECRET}\n", env=environment, catch_exceptions=False)
    assert WEBHOOK_PATH in shown.output
    assert KEY not in shown.output
    assert isinstance(run(payments_command.app, ["stripe"], input="\n", env=environment).exception, BadRequest)
    assert cards.stripe.asked == []


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40), st.integers(-300, 300))
def test_what_was_signed_is_verified_and_anything_else_is_not(payload: bytes, secret: str, shift: int) -> None:
    header = sign(payload, secret, NOW + timedelta(seconds=shift))
    verify_signature(payload, header, ["another", secret], NOW)
    verify_signature(payload, f"{header},v1={'0' * 64},v0=x", [secret], NOW)
    with pytest.raises(BadRequest):
        verify_signature(payload + b"x", header, [secret], NOW)
    with pytest.raises(BadRequest):
        verify_signature(payload, header, [secret + "x"], NOW)


@given(st.text(max_size=60))
def test_a_header_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(BadRequest):
        verify_signature(b"{}", header, [SECRET], NOW)


def test_a_signature_is_the_documented_one() -> None:
    # HMAC-SHA256 of "1492774577.{}" under "whsec_test", worked out with openssl.
    at = datetime.fromtimestamp(1492774577, UTC)
    assert (
        sign(b"{}", "whsec_test", at)
        == "t=1492774577,v1=0d0602f6611bd2252dd4b74b58a4528355a7380639a15e6cc21e3059d56d5b8b"
    )


def test_currencies_without_coins_are_counted_as_stripe_does() -> None:
    assert (to_stripe(500, "JPY"), to_stripe(500, "ISK"), to_stripe(500, "EUR")) == (500, 50_000, 500)
    assert from_stripe(50_000, "ISK") == 500
    for bad in (-1, 10**20, True, "5", 1.5, 50_001):
        with pytest.raises(BadRequest):
            from_stripe(bad, "ISK")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=8,
    )
)
def test_any_json_is_an_event_or_refused(body: Any) -> None:
    for payload in (json.dumps(body), json.dumps({"id": "e", "type": "charge.refunded", "data": {"object": body}})):
        try:
            read_event(payload.encode())
        except BadRequest:
            continue  # which is an answer; anything else raised would be a defect
