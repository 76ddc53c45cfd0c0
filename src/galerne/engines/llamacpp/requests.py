"""Knows the shape of what callers send: OpenAI's requests, with the fields that other engines have added to them."""

import re
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from galerne.kernel.errors import BadRequest

_MOST_CHOICES = 32
_MOST_LOGPROBS = 20
_LONGEST_SALT = 128
_PATH = re.compile(r" - at `\$?\.?(?P<path>[^`]*)`")

Penalty: TypeAlias = Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)]
TokenIds: TypeAlias = list[Annotated[int, msgspec.Meta(ge=0)]]


class StreamOptions(msgspec.Struct):
    """`include_usage` asks for the usage in a last chunk, `continuous_usage_stats` (vLLM's) in every chunk."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Generation(msgspec.Struct, kw_only=True):
    """What every request for text can carry; the defaults sample from the model's own distribution.

    Requests with different values of `cache_salt` (vLLM's) never share a prefix in the KV cache.
    """

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    ignore_eos: bool = False
    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] | None = None
    seed: int | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=_MOST_CHOICES)] | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, Annotated[float, msgspec.Meta(ge=-100.0, le=100.0)]] | None = None
    cache_salt: Annotated[str, msgspec.Meta(max_length=_LONGEST_SALT)] | None = None


class ContentPart(msgspec.Struct):
    """One part of a message's content; this engine reads text."""

    type: str
    text: str | None = None


class CalledFunction(msgspec.Struct):
    """A function that the model called; `arguments` is JSON text or the object itself."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(msgspec.Struct):
    """A call in an assistant's earlier message."""

    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"


class Message(msgspec.Struct):
    """One message; `prefix` (Mistral's) on the last assistant message asks to go on writing it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool = False


class Function(msgspec.Struct):
    """A function that the model may call; `parameters` is a JSON Schema, checked later to name what is wrong."""

    name: str
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    """A tool; functions are the only kind that an engine knows."""

    function: Function
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct):
    """The function that must be called."""

    name: str


class NamedTool(msgspec.Struct):
    """A tool choice that names one function."""

    function: NamedFunction
    type: Literal["function"] = "function"


class JsonSchema(msgspec.Struct):
    """The schema of a structured answer."""

    schema: Any = None
    name: str = ""
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """How the answer must look."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class ChatRequest(Generation, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required", "any"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=_MOST_LOGPROBS)] | None = None
    continue_final_message: bool = False


class CompletionRequest(Generation, kw_only=True):
    """POST /v1/completions; with `suffix` the model fills in what goes between."""

    prompt: str | list[str | int | TokenIds]
    suffix: str | None = None
    echo: bool = False
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=_MOST_LOGPROBS)] | None = None
    best_of: int | None = None
    response_format: ResponseFormat | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings."""

    input: str | list[str | int | TokenIds]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /tokenize: a text, or messages as the model would see them."""

    content: str | None = None
    add_special: bool = False
    messages: list[Message] | None = None
    tools: list[Tool] | None = None


Body = TypeVar("Body")


def parse(content: bytes, kind: type[Body]) -> Body:
    """`content` as a `kind`; raises `BadRequest` with the dotted path of the field that is wrong."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        found = _PATH.search(str(error))
        param = (found["path"] if found else "") or None
        reason = _PATH.sub("", str(error))
        raise BadRequest(f"{param}: {reason}" if param else reason, param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def token_lists(given: str | list[str | int | TokenIds], param: str) -> list[str | list[int]]:
    """A prompt or an input as a list of texts and token lists; raises `BadRequest` when it is empty or mixes kinds."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise BadRequest(f"{param} is empty", param=param)
    if all(isinstance(item, int) for item in given):
        return [[item for item in given if isinstance(item, int)]]
    whole = [item for item in given if not isinstance(item, int)]
    if len(whole) != len(given):
        raise BadRequest(f"{param} mixes token ids with texts or lists", param=param)
    return list(whole)
