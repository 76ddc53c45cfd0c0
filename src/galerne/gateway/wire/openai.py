"""How an answer looks on OpenAI's wire; only shapes, no decisions."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from galerne.gateway.wire.answer import AnswerChoice, Face, Fields, TokenCount, nine_characters
from galerne.gateway.wire.chunks import Chunk, Delta, StreamChoice, ToolDelta
from galerne.gateway.wire.errors import error_event
from galerne.kernel import GalerneError, UpstreamFailed

__all__ = ["DONE", "OpenAIStream", "chat_answer", "completion_answer"]

DONE = b"data: [DONE]\n\n"
_MOST_HELD = 16 * 1024 * 1024
_encode = msgspec.json.Encoder().encode


class _ChatChoice(Struct):
    index: int
    delta: Delta
    logprobs: Raw
    finish_reason: str | None


class _TextChoice(Struct):
    index: int
    text: str
    logprobs: Raw
    finish_reason: str | None


class OpenAIStream:
    """Rewrites an engine's chunks for one caller; whatever says that the answer is finished is kept until `finish`."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._chat = face.endpoint != "completions"
        head = {
            "id": face.answer_id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": face.created,
            "model": face.model,
            "service_tier": face.tier,
            "system_fingerprint": face.fingerprint,
        }
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if face.include_usage else b"}\n\n"
        self._begun: set[int] = set()
        self._held = b""

    def write(self, chunk: Chunk) -> bytes:
        """The bytes that may be sent now; empty when the chunk is held back or carries nothing."""
        if not chunk.choices:
            return b""
        finished = False
        out: list[_ChatChoice | _TextChoice] = []
        for choice in chunk.choices:
            finished = finished or choice.finish_reason is not None
            out.append(self._choice(choice) if self._chat else _text_choice(choice))
        event = self._head + _encode(out) + self._tail
        if finished:
            self._held += event
            if len(self._held) > _MOST_HELD:
                raise UpstreamFailed("The engine finishes its answer again and again.", code="upstream_garbage")
            return b""
        if self._held:
            event, self._held = self._held + event, b""
        return event

    def finish(self, count: TokenCount, *, context_reached: bool, cost: Fields | None = None) -> bytes:
        """What was held back, the usage chunk if asked for, with `cost` in it, and the end of the stream."""
        if not self._face.include_usage:
            return self._held + DONE
        usage = count.usage("openai", self._face.tier)
        if cost is not None:
            usage.update(cost)
        return self._held + self._head + b'[],"usage":' + _encode(usage) + b"}\n\n" + DONE

    def fail(self, error: GalerneError, usage: Fields | None = None) -> bytes:
        """The event that ends the stream badly; what was held back is not sent, for it would say that all went well."""
        return error_event(error, "openai", None if usage is None else {"usage": usage})

    def _choice(self, choice: StreamChoice) -> _ChatChoice:
        delta = choice.delta or Delta(content=choice.text)
        if choice.index not in self._begun:
            self._begun.add(choice.index)
            delta.role = "assistant"
            if self._face.prefix is not None:
                delta.content = self._face.prefix + (delta.content or "")
            elif delta.content is None and delta.tool_calls is None:
                delta.content = ""
        if delta.reasoning is not None:
            delta.reasoning_content, delta.reasoning = delta.reasoning_content or delta.reasoning, None
        if delta.tool_calls:
            self._name_calls(delta.tool_calls, choice.index)
        return _ChatChoice(choice.index, delta, choice.logprobs, _finish_reason(choice.finish_reason))

    def _name_calls(self, calls: list[ToolDelta], choice: int) -> None:
        for position, call in enumerate(calls):
            if not isinstance(call.index, int):
                call.index = position
            if call.id is not None or (call.function is not None and call.function.name):
                call.id = nine_characters(call.id, self._face.request_id, choice, call.index)
                call.type = "function"


def _text_choice(choice: StreamChoice) -> _TextChoice:
    return _TextChoice(choice.index, choice.text or "", choice.logprobs, _finish_reason(choice.finish_reason))


def _finish_reason(reason: str | None) -> str | None:
    return "length" if reason == "model_length" else reason


def chat_answer(face: Face, choices: Sequence[AnswerChoice], count: TokenCount) -> Fields:
    """The fields of a chat answer that is not streamed."""
    return {**_head(face, "chat.completion", count), "choices": [_chat_choice(choice, face) for choice in choices]}


def completion_answer(face: Face, choices: Sequence[AnswerChoice], count: TokenCount) -> Fields:
    """The fields of a completion that is not streamed."""
    found = [
        {
            "index": choice.index,
            "text": choice.content,
            "logprobs": choice.logprobs,
            "finish_reason": _finish_reason(choice.finish_reason),
        }
        for choice in choices
    ]
    return {**_head(face, "text_completion", count), "choices": found}


def _head(face: Face, kind: str, count: TokenCount) -> Fields:
    return {
        "id": face.answer_id,
        "object": kind,
        "created": face.created,
        "model": face.model,
        "service_tier": face.tier,
        "system_fingerprint": face.fingerprint,
        "usage": count.usage("openai", face.tier),
    }


def _chat_choice(choice: AnswerChoice, face: Face) -> dict[str, Any]:
    content = (face.prefix or "") + choice.content
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if choice.tool_calls else "")}
    message["refusal"] = choice.refusal
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["tool_calls"] = [call.wire() for call in choice.tool_calls]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": _finish_reason(choice.finish_reason),
    }
