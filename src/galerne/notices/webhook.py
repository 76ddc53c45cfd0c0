"""A webhook as Standard Webhooks 1.0 has it: body, headers and signature, when it is tried again, where to. Pure."""

import base64
import binascii
import hmac
import ipaddress
import json
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from galerne.kernel import BadRequest

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_LONGEST_URL = 2000
_AGAIN_S = (5, 300, 1800, 7200, 18_000, 36_000, 36_000)

# What stands for another address: checked as that one, too.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def new_secret() -> str:
    """A new signing secret: `whsec_` and 32 random bytes in base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def payload(topic: str, at: datetime, data: dict[str, Any]) -> str:
    """The body that is sent, at each attempt the same."""
    body = {"type": topic, "timestamp": at.isoformat(), "data": data}
    return json.dumps(body, separators=(",", ":"), sort_keys=True)


def signed_headers(signers: Sequence[str], webhook_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks; a signature is HMAC-SHA256 over `id.timestamp.body`.

    There is one for each secret in `signers`, separated by spaces: a receiver looks for that of the secret that it has.
    """
    seconds = str(int(now.timestamp()))
    content = f"{webhook_id}.{seconds}.".encode() + body
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(_signature(_key(secret), content) for secret in signers),
    }


def tried_again_at(attempts: int, now: datetime) -> datetime | None:
    """When it is tried again after so many attempts; None when it is dead."""
    return now + timedelta(seconds=_AGAIN_S[attempts - 1]) if attempts <= len(_AGAIN_S) else None


def check_url(url: str, *, inside: bool) -> None:
    """Raise `BadRequest` unless webhooks can go there; `inside`: to private networks too, and without TLS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _no_url("This is no URL.") from None
    if not (url.isascii() and url.isprintable() and " " not in url and len(url) <= _LONGEST_URL):
        raise _no_url("A URL has ASCII characters without spaces, at most 2000.")
    if parts.scheme not in (("https", "http") if inside else ("https",)) or not parts.hostname or port == 0:
        raise _no_url("Webhooks go to https://HOST/… addresses." if not inside else "This is no http(s) URL.")
    if parts.username is not None or parts.fragment:
        raise _no_url("A URL for webhooks has no user and no fragment; the signature says who sends.")
    address = _literal(parts.hostname)
    problem = None if address is None else address_problem(address, inside=inside)
    if problem is not None:
        raise _no_url(f"Webhooks do not go to {parts.hostname}: {problem}.")


def address_problem(address: IpAddress, *, inside: bool) -> str | None:
    """Why nothing is sent to this address; None where something may be.

    What is for this machine, this link or a private network is refused, so that nobody makes us ask in their stead what
    only we can reach. `inside` lets private networks and this machine through, never a link's own addresses, where
    clouds keep credentials.
    """
    if isinstance(address, ipaddress.IPv6Address):
        for within in (address.ipv4_mapped, address.sixtofour, _translated(address)):
            if within is not None:
                return address_problem(within, inside=inside)
    is_nobody = address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback)
    if address.is_link_local or is_nobody:
        return "it is no address of one host"
    if not inside and not address.is_global:
        return "it is inside; the operator may allow that with GALERNE_WEBHOOKS_INSIDE"
    return None


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _TRANSLATED else None


def _literal(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _signature(key: bytes, content: bytes) -> str:
    return f"v1,{base64.b64encode(hmac.new(key, content, sha256).digest()).decode()}"


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise BadRequest("This is no secret of a webhook: whsec_ and base64.") from None


def _no_url(why: str) -> BadRequest:
    return BadRequest(why, code="webhook_url_refused", param="url")
