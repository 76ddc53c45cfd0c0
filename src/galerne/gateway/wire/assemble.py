"""Joins the chunks of a stream into whole choices; pure, for answers that are not streamed and for calls sent whole."""

from typing import Any, cast

import msgspec
from msgspec import Struct

from galerne.gateway.wire.answer import AnswerChoice, AnswerToolCall, nine_characters
from galerne.gateway.wire.chunks import NULL, Chunk, StreamChoice, ToolDelta
from galerne.kernel import UpstreamFailed

__all__ = ["Assembler", "ToolCallParts"]


_LONGEST_CALLS = 16 * 1024 * 1024


class _Call(Struct):
    given_id: str = ""
    name: list[str] = []
    arguments: list[str] = []


class ToolCallParts(Struct):
    """The tool calls of one choice as their parts arrive."""

    request_id: str
    choice: int
    _size: int = 0
    _calls: dict[int, _Call] = {}

    def add(self, deltas: list[ToolDelta]) -> None:
        """Take in one chunk's parts; a part without an index belongs to the call that it stands at.

        `UpstreamFailed` when there is more than anyone could run: in Mistral's streams too, whole calls are held here.
        """
        for position, delta in enumerate(deltas):
            index = delta.index if isinstance(delta.index, int) else position
            call = self._calls.setdefault(index, _Call())
            call.given_id = call.given_id or delta.id or ""
            self._size += 100  # what an empty part takes
            if delta.function is not None:
                for part, parts in ((delta.function.name, call.name), (delta.function.arguments, call.arguments)):
                    if part:
                        parts.append(part)
                        self._size += len(part)
            if self._size > _LONGEST_CALLS:
                raise UpstreamFailed("The engine's tool calls are too large.", code="upstream_garbage")

    def whole(self) -> list[AnswerToolCall]:
        """The calls in order, each with an id of nine characters."""
        return [
            AnswerToolCall(
                nine_characters(call.given_id or None, self.request_id, self.choice, index),
                "".join(call.name),
                "".join(call.arguments),
            )
            for index, call in sorted(self._calls.items())
        ]


class _Parts(Struct):
    calls: ToolCallParts
    content: list[str] = []
    reasoning: list[str] = []
    refusal: list[str] = []
    logprobs: list[dict[str, Any]] = []
    finish_reason: str | None = None


class Assembler:
    """Collects a stream's chunks; `choices()` gives the answer so far."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._parts: dict[int, _Parts] = {}

    def add(self, chunk: Chunk) -> None:
        """Take in one chunk."""
        for choice in chunk.choices:
            self._add(choice)

    def choices(self) -> list[AnswerChoice]:
        """Every choice in order."""
        return [
            AnswerChoice(
                index=index,
                content="".join(parts.content),
                reasoning="".join(parts.reasoning),
                refusal="".join(parts.refusal) or None,
                tool_calls=parts.calls.whole(),
                finish_reason=parts.finish_reason,
                logprobs=_joined(parts.logprobs),
            )
            for index, parts in sorted(self._parts.items())
        ]

    def _add(self, choice: StreamChoice) -> None:
        parts = self._parts.get(choice.index)
        if parts is None:
            parts = self._parts[choice.index] = _Parts(ToolCallParts(self._request_id, choice.index))
        if choice.text:
            parts.content.append(choice.text)
        if (delta := choice.delta) is not None:
            if delta.content:
                parts.content.append(delta.content)
            if delta.reasoning_content or delta.reasoning:
                parts.reasoning.append(delta.reasoning_content or delta.reasoning or "")
            if delta.refusal:
                parts.refusal.append(delta.refusal)
            if delta.tool_calls:
                parts.calls.add(delta.tool_calls)
        if choice.logprobs != NULL:
            found = msgspec.json.decode(choice.logprobs)
            if isinstance(found, dict):
                parts.logprobs.append(cast(dict[str, Any], found))
        parts.finish_reason = choice.finish_reason or parts.finish_reason


def _joined(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not found:
        return None
    joined: dict[str, Any] = {}
    for one in found:
        for name, value in one.items():
            if isinstance(value, list) and isinstance(joined.get(name), list):
                joined[name].extend(cast(list[Any], value))
            elif joined.get(name) is None:
                joined[name] = value
    return joined
