"""One request at an engine: find a replica, ask it, relay or assemble its answer. Knows no keys, limits or records."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from galerne.gateway.admission import Admitted
from galerne.gateway.caller import STALL_S, Caller, Headers, HungUp
from galerne.gateway.embeddings import embedding_answer
from galerne.gateway.engine_answer import EngineAnswer, Patience, UpstreamTimedOut
from galerne.gateway.routing import Replica, Replicas, choose
from galerne.gateway.stream_options import LEAST, RefusedOptions, with_options
from galerne.gateway.tally import Tally
from galerne.gateway.upstream import ConnectFailed, ConnectionLost, OptionsRefused, Upstream, refusal
from galerne.gateway.wire import mistral, openai
from galerne.gateway.wire.answer import Face
from galerne.gateway.wire.assemble import Assembler
from galerne.kernel import Clock, Settings, Unavailable, UpstreamFailed

__all__ = ["Engines", "StreamWriter", "context_reached", "stream_writer"]

StreamWriter = openai.OpenAIStream | mistral.MistralStream

_LARGEST_ANSWER = 256 * 1024 * 1024
_LARGEST_STREAM = 64 * 1024 * 1024
_RETRY_WHEN_STARTING_S = 2.0


def context_reached(tally: Tally, cap: int | None, choices: int) -> bool:
    """Whether an answer that ended for its length met the model's context, not the caller's cap (`model_length`)."""
    if tally.finish_reason != "length" or choices > 1:
        return False
    return cap is None or tally.count().output_tokens < cap


def stream_writer(face: Face) -> StreamWriter:
    """What writes a stream in the caller's dialect; the older completions have OpenAI's form alone."""
    if face.dialect == "mistral" and face.endpoint != "completions":
        return mistral.MistralStream(face)
    return openai.OpenAIStream(face)


class Engines:
    """Every engine that this gateway talks to, with what it has learnt of them: their load and what they refuse."""

    def __init__(self, replicas: Replicas, upstream: Upstream, settings: Settings, clock: Clock) -> None:
        self._replicas = replicas
        self._upstream = upstream
        self._settings = settings
        self._clock = clock
        self._outstanding: Counter[str] = Counter()
        self._options = RefusedOptions(clock)

    async def stream(self, admitted: Admitted, tally: Tally, caller: Caller, headers: Headers) -> StreamWriter:
        """Relay an answer to `caller` up to what says that it is finished; the writer then gives the rest.

        The answer's status is sent with the first chunk, so that an engine's early failure still has one of its own.
        """
        writer = stream_writer(admitted.face)
        async with self._answer(admitted, tally) as answer:
            while chunks := await answer.read():
                out = b"".join([writer.write(chunk) for chunk in chunks])
                if out:
                    if not caller.status:
                        await caller.start(200, headers)
                    await caller.write(out)
                    tally.mark_sent()
        return writer

    async def whole(self, admitted: Admitted, tally: Tally) -> bytes:
        """The body of an answer that is not streamed."""
        assembler = Assembler(admitted.face.request_id)
        async with self._answer(admitted, tally, _LARGEST_STREAM) as answer:
            while chunks := await answer.read():
                for chunk in chunks:
                    assembler.add(chunk)
        face, choices, count = admitted.face, assembler.choices(), tally.count()
        if face.endpoint == "completions":
            return openai.completion_answer(face, choices, count)
        if face.dialect == "mistral":
            reached = context_reached(tally, admitted.cap, len(choices))
            return mistral.chat_answer(face, choices, count, context_reached=reached)
        return openai.chat_answer(face, choices, count)

    async def embed(self, admitted: Admitted, tally: Tally) -> bytes:
        """The body of an embedding answer."""
        try:
            async with (
                asyncio.timeout(self._settings.first_byte_timeout_s),
                self._response(admitted, tally) as response,
            ):
                raw = b""
                async for part in response.content.iter_any():
                    raw += part
                    if len(raw) > _LARGEST_ANSWER:
                        raise UpstreamFailed("The engine's answer is too large.", code="upstream_garbage")
        except aiohttp.ClientError as error:
            raise UpstreamFailed("The engine hung up in the middle of its answer.", code="upstream_lost") from error
        except TimeoutError as error:
            raise UpstreamTimedOut("The engine took too long.") from error
        return embedding_answer(admitted, raw, tally)

    @asynccontextmanager
    async def _answer(
        self, admitted: Admitted, tally: Tally, largest: int | None = None
    ) -> AsyncGenerator[EngineAnswer]:
        """The chunks of an answer; what is gathered here, not passed on, must have a `largest` size in bytes."""
        patience = Patience(self._settings.first_byte_timeout_s, self._settings.idle_timeout_s, STALL_S, largest)
        async with self._response(admitted, tally) as response:
            answer = EngineAnswer(response, tally, self._clock, patience)
            try:
                yield answer
            except asyncio.CancelledError as error:
                if answer.stalled:
                    raise HungUp("The client has stopped reading.") from error
                raise
            finally:
                answer.close()

    @asynccontextmanager
    async def _response(self, admitted: Admitted, tally: Tally) -> AsyncGenerator[aiohttp.ClientResponse]:
        """A good answer of one replica; leaving the block by an error or a cancellation hangs up on the engine."""
        tried: list[str] = []
        while True:
            replica = self._choose(admitted, tried)
            tried.append(replica.id)
            self._outstanding[replica.id] += 1
            try:
                try:
                    response = await self._ask(admitted, replica, tally)
                except (ConnectFailed, ConnectionLost):
                    # A kept-alive connection may have died unseen, and a dead replica must not take requests down with
                    # it: once more, at another replica if there is one. Nothing has been sent to the client yet.
                    if self._may_retry(admitted, tried):
                        continue
                    raise
                async with response:
                    yield response
                return
            finally:
                self._outstanding[replica.id] -= 1
                if not self._outstanding[replica.id]:
                    del self._outstanding[replica.id]

    def _choose(self, admitted: Admitted, tried: list[str]) -> Replica:
        replicas = self._replicas.of(admitted.model)
        seed = int(admitted.arrival.request_id[-8:], 16)
        found = choose(replicas, self._outstanding, tried, seed) or choose(replicas, self._outstanding, (), seed)
        if found is None:
            raise Unavailable(
                f"No replica of the model '{admitted.model.id}' is ready yet.",
                code="model_not_ready",
                retry_after_s=_RETRY_WHEN_STARTING_S,
            )
        return found

    def _may_retry(self, admitted: Admitted, tried: list[str]) -> bool:
        others = choose(self._replicas.of(admitted.model), self._outstanding, tried)
        return others is not None or len(tried) < 2

    async def _ask(self, admitted: Admitted, replica: Replica, tally: Tally) -> aiohttp.ClientResponse:
        known = (admitted.model.id, admitted.model.version)
        first = level = self._options.level(known)
        while True:
            try:
                response = await self._post(admitted, replica, tally, level)
            except OptionsRefused as error:
                if level == LEAST or "stream_options" not in admitted.upstream_body:
                    raise
                level = max(level + 1, 1 if error.continuous else LEAST)
                continue
            if level != first:
                # Only now: a refusal may quote what the caller wrote, and a caller must not lower what others ask for.
                self._options.remember(known, level)
            return response

    async def _post(self, admitted: Admitted, replica: Replica, tally: Tally, level: int) -> aiohttp.ClientResponse:
        body = with_options(admitted.upstream_body, level)
        before = tally.reached
        tally.reached = True
        try:
            async with asyncio.timeout(self._settings.first_byte_timeout_s):
                response = await self._upstream.post(
                    replica, admitted.upstream_path, msgspec.json.encode(body), admitted.arrival.request_id
                )
        except ConnectFailed:
            tally.reached = before
            raise
        except TimeoutError as error:
            raise UpstreamTimedOut("The engine took too long.") from error
        if response.status == 200:
            return response
        async with response:
            refused = await refusal(response)
        raise refused
