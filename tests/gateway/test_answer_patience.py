"""Patience with engines and clients where nobody had to wait before: silence is watched all the same."""

import asyncio
from typing import Any, cast

import pytest

from galerne.gateway.engine_answer import EngineAnswer, Patience
from galerne.gateway.tally import Tally
from galerne.kernel.http_client import Answer

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'


async def test_a_client_that_does_not_take_the_first_chunk_is_given_up_though_the_engine_never_let_us_wait() -> None:
    response = Answer(cast(Any, None), asyncio.get_running_loop().create_future())
    response.part_came(CHUNK)

    async def never() -> None:
        await asyncio.Event().wait()

    async def relay() -> None:
        nonlocal answer
        answer = EngineAnswer(response, Tally(10, 0.0), Patience(5.0, 0.2, 0.2))
        first = await answer.read()
        await answer.relay(first, lambda _chunks: False, never)

    answer: EngineAnswer | None = None
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.create_task(relay()), 3)
    assert answer is not None
    assert cast(EngineAnswer, answer).stalled
