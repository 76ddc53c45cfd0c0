"""Knows the shape of what goes back: OpenAI's answers and stream chunks, with usage and timings."""

from typing import Any, Literal

import msgspec

from galerne.engines.llamacpp.generation import Durations, Piece
from galerne.engines.llamacpp.native import Probability
from galerne.kernel.errors import GalerneError

_encoder = msgspec.json.Encoder()
DONE = b"data: [DONE]\n\n"


class PromptDetails(msgspec.Struct):
    """How much of the prompt came from the KV cache."""

    cached_tokens: int = 0


class Usage(msgspec.Struct):
    """Token counts of one request; every choice's tokens are in `completion_tokens`, the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CalledFunction(msgspec.Struct, omit_defaults=True):
    """A called function, or in a stream a piece of one."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, omit_defaults=True):
    """A tool call, or in a stream a piece of the one numbered `index`."""

    function: CalledFunction
    index: int | msgspec.UnsetType = msgspec.UNSET
    id: str | None = None
    type: str | None = None


class Delta(msgspec.Struct, omit_defaults=True):
    """What a stream's chunk adds to the message."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[Call] | None = None


class Answer(msgspec.Struct):
    """A whole message."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[Call] | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(msgspec.Struct):
    """A choice in a chunk of a chat's stream."""

    index: int
    delta: Delta
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class MessageChoice(msgspec.Struct):
    """A choice in a whole chat answer."""

    index: int
    message: Answer
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class TextChoice(msgspec.Struct):
    """A choice of a completion, whole or in a stream's chunk."""

    index: int
    text: str
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class Reply(msgspec.Struct, kw_only=True):
    """An answer or a chunk of one."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice] | list[MessageChoice] | list[TextChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    timings: Durations | msgspec.UnsetType = msgspec.UNSET


class Tally:
    """Counts the tokens of a request over its choices, prompts and pieces."""

    def __init__(self, prompt_tokens: int, choices: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = [0] * choices
        self._cached: dict[int, int] = {}
        self._durations = Durations()

    def add(self, choice: int, piece: Piece) -> None:
        """Takes in the counts of a piece of choice `choice`; they are totals so far."""
        self._completion_tokens[choice] = piece.completion_tokens
        if piece.cached_tokens is not None:
            self._cached[choice] = piece.cached_tokens
        if piece.durations is not None:
            for name in ("queue_ms", "prompt_ms", "decode_ms"):
                longest = max(getattr(self._durations, name), getattr(piece.durations, name))
                setattr(self._durations, name, round(longest, 3))

    @property
    def durations(self) -> Durations:
        """The longest of each duration over the choices, which run side by side."""
        return self._durations

    def usage(self, cached_per_prompt: int = 1) -> Usage:
        """The counts so far; with several choices of a prompt, what its first one found in the cache."""
        completion = sum(self._completion_tokens)
        cached = sum(count for choice, count in self._cached.items() if choice % cached_per_prompt == 0)
        return Usage(
            self._prompt_tokens,
            completion,
            self._prompt_tokens + completion,
            PromptDetails(min(cached, self._prompt_tokens)),
        )


def encode(value: object) -> bytes:
    """`value` as JSON."""
    return _encoder.encode(value)


def event(value: object) -> bytes:
    """`value` as one server-sent event."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


def error_body(error: GalerneError) -> dict[str, Any]:
    """An error in OpenAI's envelope."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def chat_logprobs(probabilities: list[Probability], top: int) -> dict[str, Any]:
    """Log-probabilities in the chat shape; `token_id` is Mistral's, whose client takes no entry without it."""
    content = [
        {**_token_logprob(entry), "top_logprobs": [_token_logprob(other) for other in entry.top_logprobs[:top]]}
        for entry in probabilities
    ]
    return {"content": content, "refusal": None}


def _token_logprob(entry: Probability) -> dict[str, Any]:
    return {"token": entry.token, "logprob": entry.logprob, "bytes": entry.bytes, "token_id": entry.id}


def text_logprobs(probabilities: list[Probability], top: int, offset: int) -> dict[str, Any]:
    """Log-probabilities in the completions shape; `offset` is where in the text, in characters, they begin."""
    offsets: list[int] = []
    for entry in probabilities:
        offsets.append(offset)
        offset += len(entry.token)
    return {
        "tokens": [entry.token for entry in probabilities],
        "token_logprobs": [entry.logprob for entry in probabilities],
        "top_logprobs": [{other.token: other.logprob for other in entry.top_logprobs[:top]} for entry in probabilities],
        "text_offset": offsets,
    }
