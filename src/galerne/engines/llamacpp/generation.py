"""Knows how to carry out a plan on the native server: queueing, streaming, minimum lengths, cancellation by leaving."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal, TypeAlias

import aiohttp
import msgspec

from galerne.engines.failures import EngineFailed
from galerne.engines.llamacpp.measures import Measures
from galerne.engines.llamacpp.native import NativeChunk, NativeClient, Probability, Timings
from galerne.engines.llamacpp.plans import Plan
from galerne.engines.llamacpp.slot_queue import Lease, SlotQueue
from galerne.kernel.clock import Clock

Finish: TypeAlias = Literal["stop", "length"]


class Durations(msgspec.Struct):
    """Where a request's time went, in milliseconds."""

    queue_ms: float = 0.0
    prompt_ms: float = 0.0
    decode_ms: float = 0.0


class Piece(msgspec.Struct):
    """News of one generation: text, the token that completed it, and how many tokens there are so far.

    `cached_tokens` is the part of the prompt that did not have to be read, None until it is known; the last piece has
    `finish` and `durations`.
    """

    text: str = ""
    token: int | None = None
    completion_tokens: int = 0
    cached_tokens: int | None = None
    probabilities: list[Probability] = []
    finish: Finish | None = None
    durations: Durations | None = None


class Generator:
    """Runs plans, at most `parallel` at once; others wait in the order in which they came."""

    def __init__(self, client: NativeClient, parallel: int, clock: Clock, measures: Measures) -> None:
        self._client = client
        self._clock = clock
        self._measures = measures
        self._slots = SlotQueue(parallel)

    async def run(self, plan: Plan) -> AsyncGenerator[list[Piece]]:
        """Yields what is generated, several pieces together when they have piled up; the last piece has `finish`.

        Leaving the iteration stops the generation. Raises `EngineFailed` when the native server breaks off.
        """
        arrived = self._clock.monotonic()
        with self._measures.waiting.track_inprogress():
            lease = await self._slots.take(plan.salt, plan.prompt)
        started = self._clock.monotonic()
        try:
            with self._measures.running.track_inprogress():
                first = True
                async with aclosing(self._phases(plan, lease, (started - arrived) * 1000)) as batches:
                    async for pieces in batches:
                        if first:
                            self._measures.first_token.observe(self._clock.monotonic() - arrived)
                            first = False
                        yield pieces
        except (aiohttp.ClientError, msgspec.DecodeError) as error:
            raise EngineFailed(f"the native server broke off: {type(error).__name__}") from error
        finally:
            self._slots.give_back(lease)

    async def _phases(self, plan: Plan, lease: Lease, queue_ms: float) -> AsyncGenerator[list[Piece]]:
        if plan.max_tokens == 0:
            yield [Piece(cached_tokens=0, finish="length", durations=Durations(queue_ms=queue_ms))]
            return
        durations, tokens, cached = Durations(queue_ms=queue_ms), list[int](), None
        if plan.min_tokens:
            # llama.cpp has no minimum: a first stretch cannot end, the second goes on from its tokens.
            body = plan.body(limit=plan.min_tokens, ignore_eos=True)
            async for pieces in self._stretch({**body, "stop": []}, lease, durations):
                tokens += [piece.token for piece in pieces if piece.token is not None]
                if pieces[-1].finish and plan.min_tokens < plan.max_tokens:
                    cached = pieces[-1].cached_tokens
                    pieces = pieces[:-1]
                if pieces:
                    yield pieces
            if plan.min_tokens == plan.max_tokens:
                return
        limit = plan.max_tokens - plan.min_tokens
        body = plan.body(generated=tuple(tokens), limit=limit, ignore_eos=bool(plan.sampling["ignore_eos"]))
        async for pieces in self._stretch(body, lease, durations, plan.min_tokens, cached):
            yield pieces

    async def _stretch(
        self, body: dict[str, Any], lease: Lease, durations: Durations, before: int = 0, cached: int | None = None
    ) -> AsyncGenerator[list[Piece]]:
        async with aclosing(self._client.complete({**body, **lease.sent()})) as batches:
            async for chunks in batches:
                lease.began()
                yield [_piece(chunk, durations, before, cached) for chunk in chunks]
                if chunks[-1].stop:
                    last = chunks[-1]
                    self._count(last, before)
                    return
        raise EngineFailed("the native server ended a stream without saying why")

    def _count(self, last: NativeChunk, before: int) -> None:
        self._measures.generated_tokens.inc(last.tokens_predicted)
        if before == 0:
            self._measures.prompt_tokens.inc(last.tokens_evaluated)
            self._measures.cached_tokens.inc((last.timings or Timings()).cache_n)


def _piece(chunk: NativeChunk, durations: Durations, before: int, cached: int | None) -> Piece:
    if chunk.stop:
        return _last_piece(chunk, durations, before, cached)
    piece = Piece(chunk.content, None, before + chunk.tokens_predicted, cached, chunk.completion_probabilities)
    if chunk.tokens:
        piece.token = chunk.tokens[-1]
    if chunk.prompt_progress is not None and cached is None:
        piece.cached_tokens = chunk.prompt_progress.cache
    return piece


def _last_piece(chunk: NativeChunk, durations: Durations, before: int, cached: int | None) -> Piece:
    timings = chunk.timings or Timings()
    durations.prompt_ms += timings.prompt_ms
    durations.decode_ms += timings.predicted_ms
    return Piece(
        text=chunk.content,
        completion_tokens=before + chunk.tokens_predicted,
        cached_tokens=timings.cache_n if cached is None else cached,
        finish="length" if chunk.stop_type == "limit" else "stop",
        durations=durations,
    )


async def run_all(generator: Generator, plans: list[Plan]) -> AsyncGenerator[tuple[int, list[Piece]]]:
    """Runs `plans` side by side; yields pieces with the number of their plan as they come."""
    if len(plans) == 1:
        async with aclosing(generator.run(plans[0])) as batches:
            async for pieces in batches:
                yield 0, pieces
        return
    queue: asyncio.Queue[tuple[int, list[Piece]]] = asyncio.Queue()

    async def feed(index: int) -> None:
        async with aclosing(generator.run(plans[index])) as batches:
            async for pieces in batches:
                queue.put_nowait((index, pieces))

    tasks = [asyncio.create_task(feed(index)) for index in range(len(plans))]
    everything = asyncio.gather(*tasks)
    try:
        async for item in _drained(queue, everything):
            yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drained(
    queue: asyncio.Queue[tuple[int, list[Piece]]], producers: "asyncio.Future[list[None]]"
) -> AsyncGenerator[tuple[int, list[Piece]]]:
    while True:
        taking = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait((taking, producers), return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                yield taking.result()
                continue
        finally:
            taking.cancel()
        await producers
        while not queue.empty():
            yield queue.get_nowait()
        return
