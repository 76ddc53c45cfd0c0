"""A server that speaks Stripe's wire: form-encoded requests, idempotency keys, its errors, and signed webhooks."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class StripeServer:
    """What was asked of it, and the state of each intent."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(
        default_factory=list[tuple[str, dict[str, str], dict[str, str]]]
    )
    intents: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    answers: dict[str, tuple[str, int, dict[str, Any]]] = field(
        default_factory=dict[str, tuple[str, int, dict[str, Any]]]
    )
    broken: bool = False

    def charge(self, intent_id: str) -> dict[str, Any]:
        intent = self.intents[intent_id]
        return {
            "id": intent_id.replace("pi_", "ch_"),
            "object": "charge",
            "payment_intent": intent_id,
            "currency": intent["currency"],
            "amount_captured": intent["amount_received"],
            "amount_refunded": intent["refunded"],
            "metadata": intent["metadata"],
        }

    def event(self, kind: str, thing: dict[str, Any], number: int) -> bytes:
        body = {"id": f"evt_{number}", "object": "event", "type": kind, "data": {"object": thing}, "livemode": False}
        return json.dumps(body).encode()

    async def answer(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.path, form, dict(request.headers)))
        if self.broken:
            return web.json_response({"error": {"type": "api_error", "message": "we are down"}}, status=500)
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"type": "invalid_request_error", "message": "no"}}, status=401)
        name, told = request.headers["idempotency-key"], json.dumps([request.path, form])
        if name in self.answers:
            before, status, body = self.answers[name]
            if before != told:
                error = {"type": "idempotency_error", "message": "Keys can only be used with the same parameters."}
                return web.json_response({"error": error}, status=400)
            return web.json_response(body, status=status, headers={"idempotent-replayed": "true"})
        status, body = self._intent(form) if request.path == "/v1/payment_intents" else self._refund(form)
        self.answers[name] = (told, status, json.loads(json.dumps(body)))
        return web.json_response(body, status=status)

    def _intent(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        intent_id = f"pi_{len(self.intents) + 1}"
        metadata = {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
        made = {"id": intent_id, "object": "payment_intent", "amount": int(form["amount"]), "amount_received": 0}
        made |= {"currency": form["currency"], "metadata": metadata, "client_secret": f"{intent_id}_secret_x"}
        self.intents[intent_id] = made | {"refunded": 0}
        return 200, made

    def _refund(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        intent, amount = self.intents[form["payment_intent"]], int(form["amount"])
        if amount > intent["amount_received"] - intent["refunded"]:
            error = {"type": "invalid_request_error", "code": "charge_already_refunded", "message": "Already refunded."}
            return 400, {"error": error}
        intent["refunded"] += amount
        return 200, {"id": "re_1", "object": "refund", "amount": amount, "charge": self.charge(form["payment_intent"])}


@asynccontextmanager
async def stripe_server() -> AsyncGenerator[StripeServer]:
    server = StripeServer()
    app = web.Application()
    app.router.add_post("/v1/{name}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
