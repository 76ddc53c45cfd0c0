"""An answer before it takes a dialect's shape: its face, choices and token counts, and ids for its tool calls."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from galerne.gateway.dialect import Dialect
from galerne.gateway.wire.requests import Endpoint

__all__ = ["AnswerChoice", "AnswerToolCall", "Face", "Fields", "TokenCount", "nine_characters"]

Fields = dict[str, Any]
"""An answer, or a part of one, before it is bytes."""

_NINE = re.compile(r"^[a-zA-Z0-9]{9}$")
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Face(Struct, frozen=True, kw_only=True):
    """What every part of an answer carries; `model` is as the caller wrote it, `fingerprint` says which version.

    `tier` is the service tier that was served, by its name in the dialect. With `include_cost` the answer's usage says
    what the request cost, so it is written once that is settled.
    """

    request_id: str
    created: int
    model: str
    fingerprint: str
    endpoint: Endpoint
    dialect: Dialect
    include_usage: bool
    prefix: str | None = None
    tier: str = "default"
    include_cost: bool = False

    @property
    def answer_id(self) -> str:
        """The answer's id: bare in Mistral's dialect, with OpenAI's prefix in OpenAI's."""
        if self.dialect == "mistral":
            return self.request_id
        return ("cmpl-" if self.endpoint == "completions" else "chatcmpl-") + self.request_id


class TokenCount(Struct, frozen=True):
    """Tokens in disjoint classes: input that was computed, input that came from a cache, output."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    estimated: bool = False

    @property
    def total(self) -> int:
        """All tokens."""
        return self.input_tokens + self.cached_tokens + self.output_tokens

    def usage(self, dialect: Dialect, tier: str) -> Fields:
        """The `usage` object: prompt tokens include cached ones on both wires; Mistral's carries the tier too."""
        usage: Fields = {
            "prompt_tokens": self.input_tokens + self.cached_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.total,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
        if dialect == "mistral":
            usage["service_tier"] = tier
        return usage


@dataclass(frozen=True, slots=True)
class AnswerToolCall:
    """One complete tool call."""

    id: str
    name: str
    arguments: str

    def wire(self, index: int | None = None) -> dict[str, Any]:
        """The call as both dialects write it."""
        call: dict[str, Any] = {"id": self.id, "type": "function"}
        if index is not None:
            call["index"] = index
        return {**call, "function": {"name": self.name, "arguments": self.arguments}}


class AnswerChoice(Struct, frozen=True, kw_only=True):
    """One complete choice; `logprobs` is the engine's object, joined over all chunks."""

    index: int
    content: str
    reasoning: str
    refusal: str | None
    tool_calls: Sequence[AnswerToolCall]
    finish_reason: str | None
    logprobs: dict[str, Any] | None


def nine_characters(given: str | None, request_id: str, choice: int, call: int) -> str:
    """`given` if it is a tool-call id that every client takes, else one made from our request id.

    Nine letters or digits: mistral-common's request validator accepts nothing else.
    """
    if given is not None and _NINE.match(given):
        return given
    number = int.from_bytes(hashlib.sha256(f"{request_id}/{choice}/{call}".encode()).digest()[:8])
    digits: list[str] = []
    for _ in range(9):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(digits)
