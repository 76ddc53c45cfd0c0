"""Keys at hand: a cached one is no better than one that was read."""

from datetime import UTC, datetime, timedelta

import pytest

from galerne.gateway.keys import KeyCache
from galerne.governance import Actor
from galerne.governance.actors import ActorKind
from galerne.identity import KeyGrant
from galerne.kernel import ManualClock, Unauthenticated

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACTOR = Actor(ActorKind.API_KEY, "key", "org", None)


async def test_a_cached_key_expires_on_time() -> None:
    async def read(presented: str) -> KeyGrant:
        return KeyGrant("k", "gal_", ACTOR, False, None, None, None, NOW + timedelta(seconds=1))

    clock = ManualClock(NOW)
    keys = KeyCache(read, clock, staleness_s=1.0)
    assert (await keys.resolve("secret")).key_id == "k"
    clock.current = NOW + timedelta(seconds=1)
    with pytest.raises(Unauthenticated) as expired:
        await keys.resolve("secret")
    assert expired.value.code == "expired_api_key"
