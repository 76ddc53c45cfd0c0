"""A cache that is fresh and bounded: loaded once, never staler than stated, no larger than stated, in outages too."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from galerne.kernel import FreshCache, ManualClock, NotFound, Unauthenticated, Unavailable
from galerne.kernel import fresh_cache as cache_module
from galerne.kernel.fresh_cache import MOST_LOADING, MOST_REFUSALS

NOW = datetime(2026, 11, 23, tzinfo=UTC)
Load = Callable[[str], Awaitable[str]]


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


def cache(load: Load, clock: ManualClock, capacity: int = 10_000, **times: float) -> FreshCache[str, str, str]:
    return FreshCache(load, clock, **{"staleness_s": 1.0, "refusal_s": 1.0, **times}, capacity=capacity)


async def test_many_who_ask_at_once_load_once() -> None:
    loader = Loader()
    values = cache(loader.load, ManualClock(NOW))
    assert await asyncio.gather(*(values.get("a", "a") for _ in range(50))) == ["A"] * 50
    assert loader.loads == ["a"]


async def test_a_value_is_never_staler_than_stated() -> None:
    loader, clock = Loader(), ManualClock(NOW)
    values = cache(loader.load, clock, capacity=3)
    for elapsed in (0.0, 0.5, 0.999, 1.0, 1.5):
        clock.elapsed_s = elapsed
        await values.get("a", "a")
    assert len(loader.loads) == 2


async def test_refusals_are_remembered_briefly_and_cannot_push_values_out() -> None:
    loader, clock = Loader(), ManualClock(NOW)
    values = cache(loader.load, clock, capacity=3)
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
    values = cache(loader.load, ManualClock(NOW))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await values.get("down", "down")
    assert len(loader.loads) == 2


async def test_one_who_hangs_up_does_not_fail_the_others() -> None:
    loader = Loader()
    values = cache(loader.load, ManualClock(NOW))
    first = asyncio.create_task(values.get("a", "a"))
    second = asyncio.create_task(values.get("a", "a"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "A"
    assert loader.loads == ["a"]


async def _upper(name: str) -> str:
    if name.startswith("bad"):
        raise NotFound(f"There is no {name}.")
    return name.upper()


async def _fill(values: FreshCache[str, str, str], names: list[str]) -> None:
    for name in names:
        with suppress(NotFound):
            await values.get(name, name)


async def test_values_stay_within_the_capacity_and_the_last_ones_stay() -> None:
    clock = ManualClock(NOW)
    values = cache(_upper, clock, capacity=50)
    await _fill(values, [f"a{number}" for number in range(200)])
    assert len(values) == 50


async def test_values_that_may_not_be_trusted_any_more_go() -> None:
    clock = ManualClock(NOW)
    values = cache(_upper, clock, outage_s=60)
    await _fill(values, [f"a{number}" for number in range(100)])
    clock.elapsed_s = 59
    await _fill(values, ["b"])
    assert len(values) == 101
    clock.elapsed_s = 61
    await _fill(values, ["c"])
    assert len(values) == 2


async def test_refusals_go_after_their_time_and_are_never_more_than_stated() -> None:
    clock = ManualClock(NOW)
    values = cache(_upper, clock)
    await _fill(values, [f"bad{number}" for number in range(MOST_REFUSALS + 200)])
    assert len(values) == MOST_REFUSALS
    clock.elapsed_s = 1.1
    await _fill(values, ["bad"])
    assert len(values) == 1


async def test_refusals_that_are_not_remembered_are_not_kept() -> None:
    values = cache(_upper, ManualClock(NOW), refusal_s=0.0)
    await _fill(values, [f"bad{number}" for number in range(100)])
    assert len(values) == 0


async def test_while_a_database_hangs_no_more_loads_wait_for_it_than_stated() -> None:
    released, begun = asyncio.Event(), 0

    async def hang(name: str) -> str:
        nonlocal begun
        begun += 1
        await released.wait()
        return name

    values = cache(hang, ManualClock(NOW))
    waiting = [asyncio.create_task(values.get(str(number), str(number))) for number in range(MOST_LOADING + 100)]
    await asyncio.sleep(0.05)
    assert begun < 10
    refused = [each for each in waiting if each.done()]
    assert len(refused) == 100
    assert all(isinstance(each.exception(), Unavailable) for each in refused)
    released.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await values.get("one more", "one more") == "one more"


@pytest.mark.parametrize(("outage_s", "found"), [(0.0, "A"), (60.0, "older")])
async def test_who_has_nothing_older_to_go_on_with_waits_as_long_as_a_read_may_take(
    monkeypatch: pytest.MonkeyPatch, outage_s: float, found: str
) -> None:
    monkeypatch.setattr(cache_module, "_PATIENCE_S", 0.02)
    answers = {"a": ("older", 0.0)}

    async def load(name: str) -> str:
        value, wait_s = answers.get(name, (name, 0.0))
        await asyncio.sleep(wait_s)
        return value

    clock = ManualClock(NOW)
    values = cache(load, clock, outage_s=outage_s)
    assert await values.get("a", "a") == "older"
    answers["a"] = ("A", 0.1)
    clock.elapsed_s = 1.5
    assert await values.get("a", "a") == found


async def test_loads_that_hang_for_ever_are_given_up_and_keep_nobody_from_a_database_that_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache_module, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(cache_module, "_GIVEN_UP_S", 0.1)
    hangs = True

    async def load(name: str) -> str:
        if hangs:
            await asyncio.Event().wait()
        return name

    values = cache(load, ManualClock(NOW))
    held = [asyncio.create_task(values.get(str(number), str(number))) for number in range(MOST_LOADING)]
    await asyncio.sleep(0)
    held[0].cancel()  # whoever asked first may be gone before anybody's patience ends
    await asyncio.gather(*held, return_exceptions=True)
    hangs = False
    async with asyncio.timeout(3):
        while True:
            with suppress(Unavailable):
                assert await values.get("one more", "one more") == "one more"
                break
            await asyncio.sleep(0.02)
