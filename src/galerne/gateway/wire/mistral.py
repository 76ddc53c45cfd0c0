"""How an answer looks on Mistral's wire; only shapes, no decisions.

Where it differs from OpenAI's: ids are bare, thinking is a content chunk, usage stands in the chunk that finishes, and
a tool call is always whole, because Mistral's clients parse each call of each chunk for itself.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from galerne.gateway.wire.answer import AnswerChoice, Face, Fields, TokenCount
from galerne.gateway.wire.assemble import ToolCallParts
from galerne.gateway.wire.chunks import NULL, Chunk, StreamChoice
from galerne.gateway.wire.errors import error_event
from galerne.gateway.wire.openai import DONE
from galerne.kernel import GalerneError, UpstreamFailed

__all__ = ["MistralStream", "chat_answer"]

_MOST_HELD = 1_000
_encode = msgspec.json.Encoder().encode


class MistralStream:
    """Rewrites an engine's chunks for one caller; whatever says that the answer is finished is kept until `finish`."""

    def __init__(self, face: Face) -> None:
        self._face = face
        head = {
            "id": face.answer_id,
            "object": "chat.completion.chunk",
            "created": face.created,
            "model": face.model,
        }
        self._chunk: dict[str, Any] = head
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":'
        self._begun: set[int] = set()
        self._calls: dict[int, ToolCallParts] = {}
        self._held: list[dict[str, Any]] = []

    def write(self, chunk: Chunk) -> bytes:
        """The bytes that may be sent now; empty when the chunk is held back or carries nothing."""
        out: list[dict[str, Any]] = []
        for choice in chunk.choices:
            shown = self._choice(choice)
            if choice.finish_reason is not None:
                self._held.append(shown)
                if len(self._held) > _MOST_HELD:
                    raise UpstreamFailed("The engine finishes its answer again and again.", code="upstream_garbage")
            elif shown["delta"]:
                out.append(shown)
        return self._head + _encode(out) + b"}\n\n" if out else b""

    def finish(self, count: TokenCount, *, context_reached: bool, cost: Fields | None = None) -> bytes:
        """What was held back with the usage, `cost` in it, and the end of the stream."""
        for choice in self._held:
            if context_reached and choice["finish_reason"] == "length":
                choice["finish_reason"] = "model_length"
        if not self._face.include_usage:
            return self._head + _encode(self._held) + b"}\n\n" + DONE
        usage = count.usage("mistral", self._face.tier)
        if cost is not None:
            usage.update(cost)
        return self._head + _encode(self._held) + b',"usage":' + _encode(usage) + b"}\n\n" + DONE

    def fail(self, error: GalerneError, usage: Fields | None = None) -> bytes:
        """The event that ends the stream badly, as a chunk whose finish reason is Mistral's own `error`."""
        choice: Fields = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        more: Fields = {} if usage is None else {"usage": usage}
        return error_event(error, "mistral", {**self._chunk, "choices": [choice], **more})

    def _choice(self, choice: StreamChoice) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        text = choice.text if choice.delta is None else choice.delta.content
        thought = None if choice.delta is None else choice.delta.reasoning_content or choice.delta.reasoning
        if choice.index not in self._begun:
            self._begun.add(choice.index)
            delta["role"] = "assistant"
            text = (self._face.prefix or "") + (text or "")
        if thought:
            delta["content"] = _thinking(thought, text or "")
        elif text is not None and (text or delta):
            delta["content"] = text
        calls = self._take_calls(choice)
        if calls:
            delta["tool_calls"] = calls
        elif choice.finish_reason is not None:
            delta.setdefault("content", "")
        shown: dict[str, Any] = {"index": choice.index, "delta": delta, "finish_reason": choice.finish_reason}
        if choice.logprobs != NULL:
            shown["logprobs"] = choice.logprobs
        return shown

    def _take_calls(self, choice: StreamChoice) -> list[dict[str, Any]]:
        if choice.delta is not None and choice.delta.tool_calls:
            parts = self._calls.setdefault(choice.index, ToolCallParts(self._face.request_id, choice.index))
            parts.add(choice.delta.tool_calls)
        if choice.finish_reason is None or choice.index not in self._calls:
            return []
        return [call.wire(index) for index, call in enumerate(self._calls.pop(choice.index).whole())]


def _thinking(thought: str, text: str) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]
    if text:
        chunks.append({"type": "text", "text": text})
    return chunks


def chat_answer(face: Face, choices: Sequence[AnswerChoice], count: TokenCount, *, context_reached: bool) -> Fields:
    """The fields of a chat or FIM answer that is not streamed."""
    return {
        "id": face.answer_id,
        "object": "chat.completion",
        "created": face.created,
        "model": face.model,
        "choices": [_choice(choice, face, context_reached) for choice in choices],
        "usage": count.usage("mistral", face.tier),
    }


def _choice(choice: AnswerChoice, face: Face, context_reached: bool) -> dict[str, Any]:
    text = (face.prefix or "") + choice.content
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _thinking(choice.reasoning, text) if choice.reasoning else text,
    }
    message["tool_calls"] = [call.wire(index) for index, call in enumerate(choice.tool_calls)] or None
    message["prefix"] = False
    reason = choice.finish_reason
    if context_reached and reason == "length":
        reason = "model_length"
    shown: dict[str, Any] = {"index": choice.index, "message": message, "finish_reason": reason}
    if choice.logprobs is not None:
        shown["logprobs"] = choice.logprobs
    return shown
