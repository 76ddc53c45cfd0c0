import asyncio
from typing import Any

import aiohttp
import pytest

from tests.engines.running import Engine, session, wait_until

RUNNING = "galerne_engine_requests_running"


def _prompt(start: int) -> list[int]:
    return [1, *((start + place * 7) % 400 + 20 for place in range(60))]


def _cached(engine: Engine, prompt: list[int], **fields: Any) -> int:
    answer = engine.complete(prompt, max_tokens=2, ignore_eos=True, **fields)
    assert answer.status == 200, answer.content
    return answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_prefix_is_found_again_under_the_same_salt(engine: Engine) -> None:
    assert _cached(engine, _prompt(1), cache_salt="one") == 0
    assert _cached(engine, _prompt(1), cache_salt="one") > 40


def test_no_salt_finds_what_another_has_read_whichever_slot_it_gets(engine: Engine) -> None:
    for _ in range(6):  # more often than there are slots: every slot has held it
        _cached(engine, _prompt(2), cache_salt="two")
    for number in range(12):
        assert _cached(engine, _prompt(2), cache_salt=f"curious {number}") == 0
    _cached(engine, _prompt(2), cache_salt="two")
    assert _cached(engine, _prompt(2)) == 0
    assert _cached(engine, _prompt(2), cache_salt="two") > 40


def test_chat_and_streams_keep_to_their_salt_too(engine: Engine) -> None:
    def cached(salt: str) -> int:
        fields = {"max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
        events = engine.chat("weather " * 20, cache_salt=salt, **fields).events
        return events[-1]["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert (cached("x"), cached("y")) == (0, 0)
    assert cached("x") > 20


def test_minimum_length_reads_its_prompt_once_under_a_salt(engine: Engine) -> None:
    fields = {"min_tokens": 3, "max_tokens": 6, "cache_salt": "m"}
    answer = engine.complete(_prompt(3), **fields).json["usage"]
    assert answer["prompt_tokens_details"]["cached_tokens"] == 0
    assert answer["completion_tokens"] >= 3


@pytest.mark.parametrize("salt", ["x" * 129, 7])
def test_salt_that_is_too_long_or_no_text_is_refused(engine: Engine, salt: Any) -> None:
    answer = engine.chat("x", cache_salt=salt)
    assert (answer.status, answer.error["param"]) == (400, "cache_salt")


async def test_requests_given_up_leave_every_slot_free_and_nothing_to_others(engine: Engine) -> None:
    async with session(engine) as http:
        body = {"prompt": _prompt(4), "max_tokens": 400, "ignore_eos": True, "cache_salt": "leaver"}
        for wait_s in (0.0, 0.002, 0.01, 0.03, 0.1):
            asking = [asyncio.create_task(http.post("/v1/completions", json=body)) for _ in range(4)]
            await asyncio.sleep(wait_s)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        asking = [asyncio.create_task(_asked(http, number)) for number in range(12)]
        assert await asyncio.gather(*asking) == [0] * 12
    await asyncio.to_thread(wait_until, lambda: engine.metric(RUNNING) == 0, 5)


async def _asked(http: aiohttp.ClientSession, number: int) -> int:
    body = {"prompt": _prompt(4), "max_tokens": 2, "ignore_eos": True, "cache_salt": f"stayer {number}"}
    async with http.post("/v1/completions", json=body) as response:
        return (await response.json())["usage"]["prompt_tokens_details"]["cached_tokens"]
