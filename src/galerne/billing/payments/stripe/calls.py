"""Stripe's HTTP, the calls that we make: form-encoded, with idempotency keys, so that repeated ones act once."""

import json
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode

from galerne.kernel import Conflict, Unavailable, UpstreamFailed
from galerne.kernel.http_client import Client, Lost, NotConnected, request_to

_VERSION = "2024-06-20"
"""Of Stripe's API: what an answer looks like does not change under us."""
_WITHIN_S = 30.0
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StripeCalls:
    """An account at Stripe; the key is shown nowhere."""

    url: str
    key: str = field(repr=False)

    async def create_intent(
        self, amount: int, currency: str, metadata: dict[str, str], idempotency_key: str
    ) -> dict[str, Any]:
        """A PaymentIntent for so much in Stripe's own units; the browser confirms it with its `client_secret`.

        `Conflict` (`card_refused`) with Stripe's words for what it refuses, `Unavailable` when it cannot be reached,
        `UpstreamFailed` when it may have heard us: asking again with the same key is safe.
        """
        form = {"amount": str(amount), "currency": currency.lower(), "automatic_payment_methods[enabled]": "true"}
        form |= {f"metadata[{name}]": value for name, value in metadata.items()}
        return await self._post("/v1/payment_intents", form, idempotency_key)

    async def refund(self, intent: str, amount: int, idempotency_key: str) -> dict[str, Any]:
        """A refund of so much; its `charge` says what was given back in all. Errors as `create_intent`."""
        form = {"payment_intent": intent, "amount": str(amount), "expand[]": "charge"}
        return await self._post("/v1/refunds", form, idempotency_key)

    async def _post(self, path: str, form: dict[str, str], idempotency_key: str) -> dict[str, Any]:
        headers = {
            "authorization": f"Bearer {self.key}",
            "content-type": "application/x-www-form-urlencoded",
            "idempotency-key": idempotency_key,
            "stripe-version": _VERSION,
        }
        client = Client()
        try:
            address, head = request_to("POST", self.url.rstrip("/") + path, headers)
            answer = await client.send(address, head, urlencode(form).encode(), _WITHIN_S)
            raw = await answer.read_all(_MOST_BYTES)
            return _read(answer.status, raw)
        except NotConnected:
            raise Unavailable("Stripe cannot be reached; try again.", code="processor_unreachable") from None
        except (Lost, TimeoutError):
            raise UpstreamFailed("Stripe did not answer; asking again is safe.", code="processor_failed") from None
        finally:
            client.close()


def _read(status: int, raw: bytes | None) -> dict[str, Any]:
    try:
        body = cast(dict[str, Any], json.loads(raw or b""))
        if status == 200:
            return body
        message = str(body["error"].get("message", ""))[:300]
        code = str(body["error"].get("code") or body["error"].get("type") or "")[:60]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UpstreamFailed(f"Stripe answered {status}, which is not understood.", code="processor_failed") from None
    if status in (401, 403):
        raise Unavailable(
            "Stripe refuses our key; set it again: galerne payments stripe.", code="processor_key_refused"
        )
    if status == 429 or status >= 500:
        raise UpstreamFailed(f"Stripe answered {status}; asking again is safe.", code="processor_failed")
    raise Conflict(f"Stripe refuses it ({code}): {message}", code="card_refused")
