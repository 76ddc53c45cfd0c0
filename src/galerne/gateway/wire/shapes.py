"""What the four inference requests may carry, as msgspec structs: the union of both dialects, with types and ranges.

Ranges are those of OpenAI's specification (2.3.0) and of Mistral's (1.7.7); where they differ the wider one is taken
here and `requests.check_strict` narrows it for strict keys. A field that one dialect lacks is accepted in both.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

__all__ = [
    "ChatBody",
    "CompletionBody",
    "EmbeddingBody",
    "FimBody",
    "Function",
    "FunctionCall",
    "Message",
    "NamedSchema",
    "NamedTool",
    "ResponseFormat",
    "Sampled",
    "StreamOptions",
    "Tool",
    "ToolCall",
    "UsageOptions",
]

Name = Annotated[str, Meta(min_length=1, max_length=256)]
FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.:-]{1,256}$")]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = str | Annotated[list[str], Meta(max_length=16)]
Tokens = Annotated[int, Meta(ge=0, le=2**31 - 1)]
AtLeastOne = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
ServiceTier = Literal["auto", "default", "standard_only", "standard", "flex", "scale", "priority", "fast"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class FunctionCall(Struct):
    """A call that the model made; Mistral's clients may send `arguments` as an object instead of as JSON text."""

    name: str
    arguments: str | dict[str, Any] = ""


class ToolCall(Struct, omit_defaults=True):
    """One call of an assistant message."""

    function: FunctionCall
    id: str | None = None
    type: str | None = None


class Message(Struct, omit_defaults=True):
    """One message; `content` is text or a list of typed chunks."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None


class Function(Struct):
    """A function offered to the model; `parameters` is a JSON Schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    """One tool; this server runs none itself, so only functions can be offered."""

    function: Function | None = None
    type: str = "function"


class NamedFunction(Struct):
    """The name of a function that must be called."""

    name: str


class NamedTool(Struct):
    """A tool choice that names its function."""

    function: NamedFunction
    type: Literal["function"] = "function"


class NamedSchema(Struct, rename={"json_schema": "schema"}):
    """The schema that an answer must follow."""

    name: str = "answer"
    json_schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Struct):
    """The form of the answer: free text, any JSON object, or JSON of one schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(Struct):
    """What a stream carries besides text."""

    include_usage: bool | None = None


class UsageOptions(Struct):
    """What an answer's `usage` carries besides counts: with `include`, what the request cost (OpenRouter's field)."""

    include: bool = False


class Sampled(Struct, kw_only=True):
    """What every request that generates text may carry."""

    model: Name
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    min_tokens: Tokens | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Seed | None = None
    random_seed: Seed | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    service_tier: ServiceTier | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    prompt_cache_key: str | None = None
    usage: UsageOptions | None = None


class ChatBody(Sampled, kw_only=True):
    """`POST /v1/chat/completions`, both dialects."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["auto", "none", "any", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: Effort | None = None
    prompt_mode: Literal["reasoning"] | None = None
    prediction: dict[str, Any] | None = None
    safe_prompt: bool | None = None
    guardrails: list[dict[str, Any]] | None = None
    modalities: list[str] | None = None
    prompt_cache_retention: str | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None


class CompletionBody(Sampled, kw_only=True):
    """`POST /v1/completions`, OpenAI's older endpoint; prompts are text or token ids, one or many."""

    prompt: str | list[Any]
    suffix: str | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class FimBody(Sampled, kw_only=True):
    """`POST /v1/fim/completions`, Mistral's: the model writes what stands between `prompt` and `suffix`."""

    prompt: str
    suffix: str | None = None


class EmbeddingBody(Struct, kw_only=True):
    """`POST /v1/embeddings`, both dialects."""

    model: Name
    input: str | list[Any]
    dimensions: AtLeastOne | None = None
    output_dimension: AtLeastOne | None = None
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    usage: UsageOptions | None = None
