"""One request at an engine: take a seat at a replica, ask, relay or assemble the answer. Knows no records."""

import asyncio
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from galerne.gateway.admission import Admitted
from galerne.gateway.caller import STALL_S, Caller, Headers, HungUp
from galerne.gateway.dispatch import Dispatcher, Seat
from galerne.gateway.embeddings import embedding_answer
from galerne.gateway.engine_answer import EngineAnswer, Patience, UpstreamTimedOut
from galerne.gateway.flights import FlightFile
from galerne.gateway.stream_options import LEAST, RefusedOptions, with_options
from galerne.gateway.tally import Tally
from galerne.gateway.upstream import ConnectFailed, OptionsRefused, Upstream, refusal
from galerne.gateway.wire import mistral, openai
from galerne.gateway.wire.answer import Face, Fields
from galerne.gateway.wire.assemble import Assembler
from galerne.gateway.wire.chunks import Chunk
from galerne.kernel import Clock, GalerneError, Settings, UpstreamFailed
from galerne.kernel.http_client import Answer, Lost

__all__ = ["Engines", "StreamWriter", "Unpriced", "context_reached", "stream_writer"]

StreamWriter = openai.OpenAIStream | mistral.MistralStream

_LARGEST_ANSWER = 256 * 1024 * 1024
_LARGEST_STREAM = 64 * 1024 * 1024
_MOST_TRIES = 3
_encode = msgspec.json.Encoder().encode


class Unpriced(Struct, frozen=True):
    """A whole answer whose usage waits for what the request cost."""

    fields: Fields

    def priced(self, cost: Fields) -> bytes:
        """The answer's body, with `cost` in its usage."""
        return _encode({**self.fields, "usage": {**self.fields["usage"], **cost}})


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
    """Every engine that this gateway talks to, with what it has learnt of them: what they refuse."""

    def __init__(self, dispatcher: Dispatcher, flights: FlightFile, settings: Settings, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._flights = flights
        self._upstream = Upstream()
        self._first_byte_s = settings.first_byte_timeout_s
        self._idle_s = settings.idle_timeout_s
        self._clock = clock
        self._options = RefusedOptions(clock)

    def close(self) -> None:
        """Close the connections to every engine."""
        self._upstream.close()

    async def stream(self, admitted: Admitted, tally: Tally, caller: Caller, headers: Headers) -> StreamWriter:
        """Relay an answer to `caller` up to what says that it is finished; the writer then gives the rest.

        The answer's status is sent with the first chunk, so that an engine's early failure still has one of its own.
        """
        writer = stream_writer(admitted.face)
        visit = await self._visit(admitted, tally, None)
        try:
            tally.slot = self._flights.begin(admitted.flight(tally.zone), self._clock.monotonic())
            take = partial(_pass_on, writer, tally, caller, headers)
            await visit.answer.relay(visit.first, take, caller.caught_up)
        except asyncio.CancelledError as error:
            if visit.answer.stalled:
                raise HungUp("The client has stopped reading.") from error
            raise
        except GalerneError as error:
            visit.seat.failed(error)
            raise
        finally:
            visit.leave(tally)
        return writer

    async def whole(self, admitted: Admitted, tally: Tally) -> bytes | Unpriced:
        """The body of an answer that is not streamed, unless it shall say what it cost."""
        visit = await self._visit(admitted, tally, _LARGEST_STREAM)
        assembler = Assembler(admitted.face.request_id)
        try:
            chunks = visit.first
            while chunks:
                for chunk in chunks:
                    assembler.add(chunk)
                chunks = await visit.answer.read()
        except asyncio.CancelledError as error:
            if visit.answer.stalled:
                raise HungUp("The client has stopped reading.") from error
            raise
        except GalerneError as error:
            visit.seat.failed(error)
            raise
        finally:
            visit.leave(tally)
        fields = _whole_answer(admitted, assembler, tally)
        return Unpriced(fields) if admitted.face.include_cost else _encode(fields)

    async def embed(self, admitted: Admitted, tally: Tally) -> bytes | Unpriced:
        """The body of an embedding answer, unless it shall say what it cost."""
        tried: list[str] = []
        while True:
            seat = await self._dispatcher.take(admitted, tried)
            try:
                raw = await self._embedded(admitted, seat, tally)
            except GalerneError as error:
                seat.failed(error)
                if not self._may_retry(admitted, tried, seat, error):
                    raise
            else:
                seat.answers()
                tally.zone = seat.replica.zone
                fields = embedding_answer(admitted, raw, tally)
                return Unpriced(fields) if admitted.face.include_cost else _encode(fields)
            finally:
                seat.leave(tally)

    async def _embedded(self, admitted: Admitted, seat: Seat, tally: Tally) -> bytes:
        try:
            async with asyncio.timeout(self._first_byte_s):
                response = await self._ask(admitted, seat, tally)
                try:
                    return await _read_whole(response)
                finally:
                    response.close()
        except Lost as error:
            raise UpstreamFailed("The engine hung up in the middle of its answer.", code="upstream_lost") from error
        except TimeoutError as error:
            raise UpstreamTimedOut("The engine took too long.") from error

    async def _visit(self, admitted: Admitted, tally: Tally, largest: int | None) -> "_Visit":
        """A replica that has begun to answer: where one fails before that, another is asked, for nothing was sent yet.

        What is gathered here, not passed on, must have a `largest` size in bytes.
        """
        tried: list[str] = []
        while True:
            seat = await self._dispatcher.take(admitted, tried)
            answer: EngineAnswer | None = None
            begun = False
            try:
                response = await self._ask(admitted, seat, tally)
                patience = Patience(self._first_byte_s, self._idle_s, STALL_S, largest)
                answer = EngineAnswer(response, tally, patience)
                visit = _Visit(seat, answer, await answer.read())
                tally.zone = seat.replica.zone
                seat.answers()
                begun = True
                return visit
            except GalerneError as error:
                seat.failed(error)
                if tally.heard or not self._may_retry(admitted, tried, seat, error):
                    raise
            finally:
                if not begun:
                    if answer is not None:
                        answer.close()
                    seat.leave(tally)

    def _may_retry(self, admitted: Admitted, tried: list[str], seat: Seat, error: GalerneError) -> bool:
        """Whether `error` is one that another replica may not have, and there is one to ask."""
        tried.append(seat.replica.id)
        passing = isinstance(error, UpstreamFailed | ConnectFailed) or error.status in (429, 503)
        if not passing or len(tried) >= _MOST_TRIES:
            return False
        if self._dispatcher.has_other(admitted, tried):
            self._dispatcher.count_retry(seat.replica.id)
            return True
        # A kept-alive connection may have died unseen: the same replica once more, if it never answered at all.
        return error.code in ("upstream_unreachable", "upstream_lost") and len(tried) == 1

    async def _ask(self, admitted: Admitted, seat: Seat, tally: Tally) -> Answer:
        known = (admitted.model.id, admitted.model.version)
        first = level = self._options.level(known)
        while True:
            try:
                answer = await self._post(admitted, seat, tally, level)
            except OptionsRefused as error:
                if level == LEAST or "stream_options" not in admitted.upstream_body:
                    raise
                level = max(level + 1, 1 if error.continuous else LEAST)
                continue
            if level != first:
                # Only now: a refusal may quote what the caller wrote, and a caller must not lower what others ask for.
                self._options.remember(known, level)
            return answer

    async def _post(self, admitted: Admitted, seat: Seat, tally: Tally, level: int) -> Answer:
        body: dict[str, Any] = with_options(admitted.upstream_body, level)
        before = tally.reached
        tally.reached = True
        try:
            answer = await self._upstream.post(
                seat.replica, admitted.upstream_path, _encode(body), admitted.arrival.request_id, self._first_byte_s
            )
            if answer.status == 200:
                return answer
            async with asyncio.timeout(self._first_byte_s):
                raise await refusal(answer)
        except ConnectFailed:
            tally.reached = before
            raise
        except TimeoutError as error:
            raise UpstreamTimedOut("The engine took too long.") from error


def _whole_answer(admitted: Admitted, assembler: Assembler, tally: Tally) -> Fields:
    face, choices, count = admitted.face, assembler.choices(), tally.count()
    if face.endpoint == "completions":
        return openai.completion_answer(face, choices, count)
    if face.dialect == "mistral":
        reached = context_reached(tally, admitted.cap, len(choices))
        return mistral.chat_answer(face, choices, count, context_reached=reached)
    return openai.chat_answer(face, choices, count)


def _pass_on(writer: StreamWriter, tally: Tally, caller: Caller, headers: Headers, chunks: list[Chunk]) -> bool:
    """Write what `chunks` are in the caller's dialect, counted before they leave; whether the caller keeps up."""
    out = b"".join([writer.write(chunk) for chunk in chunks])
    if not out:
        return True
    tally.mark_sent()
    if not caller.status:
        caller.begin(200, headers)
    return caller.write_now(out)


class _Visit:
    """A replica's answer that has begun, with its first chunks."""

    __slots__ = ("answer", "first", "seat")

    def __init__(self, seat: Seat, answer: EngineAnswer, first: list[Chunk]) -> None:
        self.seat = seat
        self.answer = answer
        self.first = first

    def leave(self, tally: Tally) -> None:
        self.answer.close()
        self.seat.leave(tally)


async def _read_whole(answer: Answer) -> bytes:
    raw = bytearray()
    while part := await answer.read():
        raw += part
        if len(raw) > _LARGEST_ANSWER:
            raise UpstreamFailed("The engine's answer is too large.", code="upstream_garbage")
    return bytes(raw)
