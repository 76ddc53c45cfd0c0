"""What many requests share: caches that load once and stay fresh."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from galerne.gateway.cache import FreshCache
from galerne.gateway.keys import KeyCache
from galerne.governance import Actor
from galerne.governance.actors import ActorKind
from galerne.identity import KeyGrant
from galerne.kernel import ManualClock, Unauthenticated, Unavailable

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ACTOR = Actor(ActorKind.API_KEY, "key", "org", None)


class Loader:
    """Counts its loads; a key that starts with "bad" is refused, one that starts with "down" fails."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    async def load(self, key: str) -> str:
        self.loads.append(key)
        await asyncio.sleep(0.01)
        if key.startswith("bad"):
            raise Unauthenticated("no")
        if key.startswith("down"):
            raise Unavailable("later")
        return key.upper()


def cache(loader: Loader, clock: ManualClock, capacity: int = 3) -> FreshCache[str, str, str]:
    return FreshCache(loader.load, clock, staleness_s=1.0, refusal_s=1.0, capacity=capacity)


async def test_many_who_ask_at_once_load_once() -> None:
    loader = Loader()
    values = cache(loader, ManualClock(NOW))
    assert await asyncio.gather(*(values.get("a", "a") for _ in range(50))) == ["A"] * 50
    assert loader.loads == ["a"]


async def test_a_value_is_never_staler_than_stated() -> None:
    loader, clock = Loader(), ManualClock(NOW)
    values = cache(loader, clock)
    for elapsed in (0.0, 0.5, 0.999, 1.0, 1.5):
        clock.elapsed_s = elapsed
        await values.get("a", "a")
    assert len(loader.loads) == 2


async def test_refusals_are_remembered_briefly_and_cannot_push_values_out() -> None:
    loader, clock = Loader(), ManualClock(NOW)
    values = cache(loader, clock)
    await values.get("a", "a")
    for number in range(20):
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await values.get(f"bad{number}", f"bad{number}")
    await values.get("a", "a")
    assert loader.loads.count("a") == 1
    assert loader.loads.count("bad7") == 1
    assert len(values) <= 6
    clock.elapsed_s = 1.0
    with pytest.raises(Unauthenticated):
        await values.get("bad19", "bad19")
    assert loader.loads.count("bad19") == 2


async def test_an_outage_is_not_remembered() -> None:
    loader = Loader()
    values = cache(loader, ManualClock(NOW))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await values.get("down", "down")
    assert len(loader.loads) == 2


async def test_one_who_hangs_up_does_not_fail_the_others() -> None:
    loader = Loader()
    values = cache(loader, ManualClock(NOW))
    first = asyncio.create_task(values.get("a", "a"))
    second = asyncio.create_task(values.get("a", "a"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "A"
    assert loader.loads == ["a"]


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
