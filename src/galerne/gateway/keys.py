"""Who calls: the key of a request, through a cache whose staleness is the time that a revocation needs to bite."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC

from galerne.identity import KeyGrant, resolve_key_script
from galerne.kernel import Clock, FreshCache, Reader, Unauthenticated

__all__ = ["MOST_KEYS", "KeyCache", "key_reader", "presented_key"]

MOST_KEYS = 10_000
"""How many keys are at hand, and known in an outage: 1 kB each."""

_LONGEST_KEY = 512


def presented_key(headers: Mapping[bytes, bytes]) -> str:
    """The key in `Authorization: Bearer …` or `x-api-key`; `Unauthenticated` when there is none that could be one."""
    scheme, _, credential = headers.get(b"authorization", b"").partition(b" ")
    raw = credential.strip() if scheme.lower() == b"bearer" else b""
    raw = raw or headers.get(b"x-api-key", b"").strip()
    if not raw:
        raise Unauthenticated(
            "No API key was given. Send it as 'Authorization: Bearer <key>' or as 'x-api-key'.", code="missing_api_key"
        )
    if len(raw) > _LONGEST_KEY or not raw.isascii() or b"\x00" in raw:
        raise Unauthenticated("This API key is not valid.", code="invalid_api_key")
    return raw.decode("ascii")


def key_reader(reader: Reader, clock: Clock) -> Callable[[str], Awaitable[KeyGrant]]:
    """A function that resolves a key; `Unavailable`, never 401, when the database is down."""
    return lambda presented: reader.run(resolve_key_script(presented, clock.now()))


class KeyCache:
    """Resolved keys by the SHA-256 of the key; a key's expiry is checked at each use, cached or not.

    Where the database does not answer, a key that it knew is trusted for `outage_s`.
    """

    def __init__(
        self,
        read: Callable[[str], Awaitable[KeyGrant]],
        clock: Clock,
        *,
        staleness_s: float,
        outage_s: float = 0.0,
        capacity: int = MOST_KEYS,
    ) -> None:
        self._clock = clock
        self._grants: FreshCache[bytes, str, KeyGrant] = FreshCache(
            read, clock, staleness_s=staleness_s, refusal_s=staleness_s, capacity=capacity, outage_s=outage_s
        )

    async def resolve(self, presented: str) -> KeyGrant:
        """What the key may do; `Unauthenticated` for one that is unknown, revoked or expired."""
        grant = await self._grants.get(hashlib.sha256(presented.encode()).digest(), presented)
        if grant.expires_at is not None and grant.expires_at.astimezone(UTC) <= self._clock.now():
            raise Unauthenticated("This API key has expired.", code="expired_api_key")
        return grant
