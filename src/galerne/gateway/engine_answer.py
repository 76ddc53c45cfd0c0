"""One engine's streamed answer, read chunk by chunk under a limit on its silence."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic

import msgspec

from galerne.gateway.sse import DONE_DATA, EventSplitter
from galerne.gateway.tally import Tally
from galerne.gateway.upstream import engine_error
from galerne.gateway.wire.chunks import Chunk, decode_chunk
from galerne.kernel import Deadline, GalerneError, UpstreamFailed, later
from galerne.kernel.http_client import Answer, Lost

__all__ = ["EngineAnswer", "Patience", "UpstreamTimedOut"]


_END_S = 0.05


class UpstreamTimedOut(UpstreamFailed):
    """The engine took longer than settings allow until its first byte or between two."""

    status = 504
    code = "upstream_timeout"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine may take until its first byte and between two, how long a client may read nothing, and how
    many bytes an answer may have, if that is limited.
    """

    first_byte_s: float
    idle_s: float
    stall_s: float
    largest_bytes: int | None = None


class EngineAnswer:
    """Gives the chunks of `response` as they come and counts them in `tally`.

    Silence is watched by one timer an answer, which looks now and then, because setting a timer for every chunk costs
    more than parsing it: an engine is cut after `idle_s` to an eighth more. While a slow client keeps us from reading,
    it is the client's silence that counts: the reading task is cancelled and `stalled` is true.
    """

    def __init__(self, response: Answer, tally: Tally, patience: Patience) -> None:
        self._response = response
        self._tally = tally
        self._idle_s = patience.idle_s
        self._limit_s = patience.first_byte_s
        self._stall_s = patience.stall_s
        self._largest_bytes = patience.largest_bytes
        self._bytes = 0
        self._splitter = EventSplitter()
        self._waiting_since_s: float | None = None
        self._timer: Deadline | None = None
        self._timed_out = False
        self._task = asyncio.current_task()
        self._read_at_s = 0.0
        self.stalled = False
        self._done = False
        self._failure: GalerneError | None = None
        self._defect: Exception | None = None
        self._behind = False

    async def read(self) -> list[Chunk]:
        """The chunks that the next reads bring, never none; an empty list once the engine has said that it is done.

        Raises `UpstreamFailed` for an answer that ends early, is no answer, or reports an error, `UpstreamTimedOut` for
        silence.
        """
        if self._failure is not None:
            raise self._failure.again()
        while not self._done:
            read = await self._read()
            data = self._splitter.feed(read) if read else self._splitter.end()
            self._done = not read or DONE_DATA in data
            if self._done and read:
                await self._reach_end()
            chunks = self._chunks(data)
            if chunks:
                return chunks
        if not self._tally.finished:
            raise UpstreamFailed("The engine ended its answer without finishing it.", code="upstream_lost")
        return []

    async def relay(
        self, first: list[Chunk], take: Callable[[list[Chunk]], bool], caught_up: Callable[[], Awaitable[None]]
    ) -> None:
        """Give `first`, which `read` brought, and then chunks to `take` in the moment in which they come, until the
        answer's end; raises what `read` does.

        `take` says whether the client keeps up; if it does not, nothing is read until `caught_up` returns.
        """
        came = partial(self._came, take)
        self._watch()
        if not take(first):
            await caught_up()
        while True:
            self._waiting_since_s = monotonic()
            await self._response.hand_over(came)
            self._waiting_since_s, self._read_at_s = None, monotonic()
            if self._defect is not None:
                raise self._take_defect()
            if self._behind:
                self._behind = False
                await caught_up()
                continue
            if self._done:
                await self._reach_end()
            chunks = await self.read()
            if not chunks:
                return
            if not take(chunks):
                await caught_up()

    def _came(self, take: Callable[[list[Chunk]], bool], part: bytes) -> bool:
        self._waiting_since_s = monotonic()
        try:
            data = self._splitter.feed(part)
            self._done = DONE_DATA in data
            chunks = self._chunks(data)
            self._behind = bool(chunks) and not take(chunks)
        except Exception as error:  # noqa: BLE001 - a callback of the parser must not raise; `relay` does so instead
            self._defect = error
            return False
        return not (self._behind or self._done or self._failure is not None)

    def _take_defect(self) -> Exception:
        # It holds the frames that it went through, and they hold this: kept, both would wait for the collector.
        defect, self._defect = self._defect, None
        return defect or UpstreamFailed("The engine's answer could not be read.")

    def close(self) -> None:
        """Stop watching, and hang up unless the engine had ended its answer by itself."""
        if self._timer is not None:
            self._timer.cancel()
        self._response.close()

    async def _read(self) -> bytes:
        try:
            if self._response.waiting:
                self._watch()
                self._waiting_since_s = monotonic()
                await self._response.wait()
            read = self._response.take()
        except Lost as error:
            if self._tally.finished:
                return b""  # only what says that this was all is missing
            if self._timed_out:
                raise UpstreamTimedOut("The engine took too long.") from error
            raise UpstreamFailed("The engine hung up in the middle of its answer.", code="upstream_lost") from error
        self._waiting_since_s = None
        self._read_at_s = monotonic()
        self._bytes += len(read)
        if self._largest_bytes is not None and self._bytes > self._largest_bytes:
            raise UpstreamFailed("The engine's answer is too large.", code="upstream_garbage")
        if self._limit_s != self._idle_s:
            self._limit_s = self._idle_s
            if self._timer is not None:
                self._timer.cancel()
                self._timer = later(self._idle_s / 8, self._look)
        return read

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = later(self._limit_s, self._look)

    async def _reach_end(self) -> None:
        # A connection can be used again only if its answer was read to its end, right behind the last event.
        # It nearly always came together with that event, so that there is nothing to wait for.
        if self._response.complete:
            return
        with suppress(TimeoutError, Lost):
            async with asyncio.timeout(_END_S):
                while await self._response.read():
                    pass

    def _look(self) -> None:
        since_s, now_s = self._waiting_since_s, monotonic()
        if since_s is not None and now_s - since_s >= self._limit_s:
            self._timed_out = True
            self._response.fail(Lost("silence"))
            return
        if since_s is None and now_s - self._read_at_s >= self._stall_s and self._task is not None:
            self.stalled = True
            self._task.cancel()
            return
        self._timer = later(self._idle_s / 8, self._look)

    def _chunks(self, data: list[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        try:
            for one in data:
                if one and one != DONE_DATA:
                    chunks.append(self._chunk(one))
        except GalerneError as error:
            if not chunks:
                raise
            self._failure = error.again()  # what came before it is good and goes out first
        return chunks

    def _chunk(self, data: bytes) -> Chunk:
        try:
            chunk = decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # The cause is cut off: its text may quote the answer.
            raise UpstreamFailed("The engine sent something that is no answer.", code="upstream_garbage") from error
        if chunk.error is not None:
            raise engine_error(chunk.error)
        self._tally.see(chunk, monotonic())
        return chunk
