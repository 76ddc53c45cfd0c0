import asyncio
import time

import pytest

from tests.engines.running import Engine, session, wait_until

LONG = {"prompt": "the quick", "max_tokens": 400, "ignore_eos": True, "stream": True}
CANCELLED = 'galerne_engine_requests_total{outcome="cancelled"}'
RUNNING = "galerne_engine_requests_running"
WAITING = "galerne_engine_requests_waiting"


async def _quiet(engine: Engine, within_s: float) -> None:
    end = time.monotonic() + within_s
    while engine.metric(RUNNING) + engine.metric(WAITING) > 0:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
async def test_hang_up_frees_the_slot_long_before_the_answer_would_end(brise: Engine, stream: bool) -> None:
    before = brise.metric(CANCELLED)
    body = {**LONG, "max_tokens": 1900, "stream": stream}
    async with session(brise) as http:
        asking = asyncio.create_task(http.post("/v1/completions", json=body))
        await asyncio.to_thread(wait_until, lambda: brise.metric(RUNNING) == 1, 20)
        if stream:
            (await asking).close()
        else:
            asking.cancel()
        await _quiet(brise, 20)
    assert brise.metric(CANCELLED) == before + 1


async def test_hang_up_in_the_queue_counts_as_cancelled_too(brise: Engine) -> None:
    before = brise.metric(CANCELLED)
    async with session(brise) as http:
        asking = [
            asyncio.create_task(http.post("/v1/completions", json={**LONG, "max_tokens": 1900})) for _ in range(7)
        ]
        await asyncio.to_thread(wait_until, lambda: brise.metric(WAITING) == 3, 20)
        await asyncio.to_thread(wait_until, lambda: sum(request.done() for request in asking) == 4, 20)
        assert (brise.metric(RUNNING), brise.metric(WAITING)) == (4, 3)
        for request in asking:
            if request.done():
                request.result().close()
            request.cancel()
        await _quiet(brise, 20)
    assert brise.metric(CANCELLED) == before + 7


async def test_native_server_stops_working_for_a_caller_who_left(brise: Engine) -> None:
    # A machine with other work may be late now and then; a server that goes on is so each time.
    for _ in range(4):
        if await _seconds_after_a_caller_left(brise) < 1.5:
            return
    raise AssertionError("four requests waited for one whose caller had left")


async def _seconds_after_a_caller_left(brise: Engine) -> float:
    async with session(brise) as http:
        response = await http.post("/v1/completions", json={**LONG, "max_tokens": 1900})
        await response.content.readany()
        response.close()
        await asyncio.sleep(1.2)
        begun = time.monotonic()
        four = [http.post("/v1/completions", json={**LONG, "max_tokens": 8}) for _ in range(4)]
        for answer in await asyncio.gather(*four):
            await answer.read()
        return time.monotonic() - begun


async def test_more_requests_than_slots_all_finish(engine: Engine) -> None:
    async with session(engine) as http:

        async def ask(number: int) -> int:
            body = {"prompt": [1, 20 + number], "max_tokens": 20, "ignore_eos": True}
            async with http.post("/v1/completions", json=body) as response:
                return (await response.json())["usage"]["completion_tokens"]

        assert await asyncio.gather(*(ask(number) for number in range(24))) == [20] * 24
    assert engine.metric(RUNNING) == engine.metric(WAITING) == 0
