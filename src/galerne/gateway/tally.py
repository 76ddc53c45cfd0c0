"""Counts one request's tokens and times as its chunks pass; pure: it is told the moment."""

import math
from typing import Any

from msgspec import Struct

from galerne.gateway.flights import FlightSlot
from galerne.gateway.wire.answer import TokenCount
from galerne.gateway.wire.chunks import Chunk, StreamChoice, Usage

__all__ = ["BYTES_PER_TOKEN", "Tally"]

BYTES_PER_TOKEN = 4
"""The estimate of input tokens where an engine does not count: bytes of text divided by this, rounded up."""

_LARGEST = 2**24  # no answer has 16 million tokens, and none waits as many milliseconds: such a number reports nothing


class Tally(Struct):
    """What is known of one request so far.

    `reached` becomes true when an engine may have begun to work; only then is there anything to settle. `heard` becomes
    true with the first chunk. `zone` is where the replica stands, `slot` a stream's place among those under way,
    `texts` the answers so far, gathered only where a trace may hold them.
    `count()` is what the engine reported, or an estimate marked as such: one token for each chunk with text, and the
    input by its bytes. A count that cannot be one (negative, above 2^24) is not reported. Of several answers at once a
    running count below that estimate is taken for one answer's alone.
    """

    prompt_bytes: int
    started_s: float
    reached: bool = False
    heard: bool = False
    finish_reason: str | None = None
    queue_ms: float = 0.0
    ttft_ms: float | None = None
    zone: str = ""
    slot: FlightSlot | None = None
    texts: dict[int, list[str]] | None = None
    _usage: Usage | None = None
    _chunks: int = 0
    _sent: tuple[Usage | None, int] | None = None
    _unfinished: set[int] = set()
    _several: bool = False

    def see(self, chunk: Chunk, now_s: float) -> None:
        """Take in one chunk."""
        self.heard = True
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timings is not None:
            self.queue_ms = _number(chunk.timings.get("queue_ms"))
        for choice in chunk.choices:
            if _has_text(choice):
                self._chunks += 1
                if self.texts is not None:
                    text = choice.text if choice.delta is None else choice.delta.content
                    self.texts.setdefault(choice.index, []).append(text or "")
                if self.ttft_ms is None:
                    self.ttft_ms = (now_s - self.started_s) * 1000
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
                self._unfinished.discard(choice.index)
            else:
                self._unfinished.add(choice.index)
            if choice.index > 0:
                self._several = True
        if self._several and chunk.usage is not None and chunk.choices:
            self._usage = self._of_all_choices(chunk.usage)

    def _of_all_choices(self, running: Usage) -> Usage:
        # vLLM's running count is of the choice that its chunk is of; the last one, of all, may never be waited for.
        told = _reported(running.completion_tokens)
        if told is None or told >= self._chunks:
            return running
        return Usage(running.prompt_tokens, self._chunks, prompt_tokens_details=running.prompt_tokens_details)

    @property
    def finished(self) -> bool:
        """Whether every choice that began has said why it ended."""
        return self.finish_reason is not None and not self._unfinished

    def mark_sent(self) -> None:
        """Note that everything seen so far is handed to the client now, so that not even our own death forgets it."""
        self._sent = (self._usage, self._chunks)
        if self.slot is not None:
            self.slot.deliver(self.count())

    def count(self) -> TokenCount:
        """The tokens seen so far."""
        return self._count(self._usage, self._chunks)

    def _count(self, usage: Usage | None, chunks: int) -> TokenCount:
        if usage is None:
            return TokenCount(self._estimated_input(), 0, chunks, estimated=True)
        details = usage.prompt_tokens_details
        prompt, output = _reported(usage.prompt_tokens), _reported(usage.completion_tokens)
        estimated = prompt is None or output is None
        if prompt is None:
            prompt = self._estimated_input()
        cached = min(prompt, (_reported(details.cached_tokens) if details else None) or 0)
        return TokenCount(prompt - cached, cached, chunks if output is None else output, estimated)

    def sent(self) -> TokenCount:
        """The tokens handed to the client so far; the whole input, for it was read."""
        if self._sent is not None:
            return self._count(*self._sent)
        seen = self.count()
        return TokenCount(seen.input_tokens, seen.cached_tokens, 0, seen.estimated)

    def count_input(self, prompt_tokens: int | None) -> None:
        """Take in an answer without output, such as embeddings; None where the engine does not count."""
        self.heard = True
        if prompt_tokens is not None:
            self._usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=0)

    def _estimated_input(self) -> int:
        return max(1, math.ceil(self.prompt_bytes / BYTES_PER_TOKEN))


def _has_text(choice: StreamChoice) -> bool:
    delta = choice.delta
    if delta is None:
        return bool(choice.text)
    return bool(delta.content or delta.tool_calls or delta.reasoning_content or delta.reasoning or delta.refusal)


def _reported(count: int | None) -> int | None:
    return count if count is not None and 0 <= count <= _LARGEST else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= _LARGEST else 0.0
