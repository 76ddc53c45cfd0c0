"""What comes back from an engine, chunk by chunk, as msgspec structs: only the fields that we act on or pass on."""

import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

__all__ = [
    "NULL",
    "Chunk",
    "Delta",
    "StreamChoice",
    "ToolDelta",
    "ToolDeltaFunction",
    "Usage",
    "UsageDetails",
    "decode_chunk",
]


NULL = Raw(b"null")
"""What an absent `logprobs` is: they are passed on as bytes, for nobody here reads them."""


class UsageDetails(Struct, gc=False):
    """How many prompt tokens came from the engine's cache."""

    cached_tokens: int | None = None


class Usage(Struct, gc=False):
    """Token counts of an answer so far."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: UsageDetails | None = None


class ToolDeltaFunction(Struct, omit_defaults=True):
    """A part of a tool call's name and arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolDelta(Struct, omit_defaults=True):
    """A part of a tool call; `index` says of which."""

    index: int | UnsetType = UNSET
    id: str | None = None
    type: str | None = None
    function: ToolDeltaFunction | None = None


class Delta(Struct, omit_defaults=True):
    """What one chunk adds to a message."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolDelta] | None = None


class StreamChoice(Struct):
    """One choice of one chunk, of a chat (`delta`) or a completion (`text`)."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Raw = NULL


class Chunk(Struct):
    """One SSE event of an engine."""

    choices: list[StreamChoice] = []
    usage: Usage | None = None
    error: dict[str, Any] | str | None = None
    timings: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(Chunk).decode
_FINISH_REASON = re.compile(r"[a-z_]{1,40}")


def decode_chunk(data: bytes) -> Chunk:
    """The chunk in the bytes of one event's data; `msgspec.DecodeError` or `UnicodeDecodeError` when there is none.

    A finish reason is a name or `other`, for it goes on to clients, into usage and into the journal; an empty one is
    what some engines write in every chunk before the last, so it says nothing.
    """
    chunk = _decode(data)
    for choice in chunk.choices:
        reason = choice.finish_reason
        if reason is not None and not _FINISH_REASON.fullmatch(reason):
            choice.finish_reason = "other" if reason else None
    return chunk
