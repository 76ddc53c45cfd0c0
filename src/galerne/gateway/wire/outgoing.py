"""What is sent to an engine for a checked request: one OpenAI-shaped body, always asking for a stream with running
usage.

What concerns the gateway stays at the gateway (who calls, tiers, retention, tags). Fields that no dialect has go
through to `openai` engines, whose options we cannot know, and not to the embedded engine, whose options we do.
"""

from hashlib import sha256
from typing import Any, cast

from galerne.gateway.wire.chat import prefix_of, upstream_messages, upstream_tool_choice
from galerne.gateway.wire.requests import Parsed, completion_cap, unknown_fields
from galerne.gateway.wire.shapes import ChatBody, CompletionBody, EmbeddingBody, FimBody, Sampled
from galerne.kernel import BadRequest
from galerne.models import Model

__all__ = [
    "STREAM_OPTIONS",
    "cache_scope",
    "chat_upstream",
    "completion_upstream",
    "embedding_upstream",
    "fim_upstream",
]

STREAM_OPTIONS = {"include_usage": True, "continuous_usage_stats": True}
"""Running usage (vLLM's option, and our engine's) is what lets a stream that is cut be metered for what was sent."""

_SAMPLING = frozenset(
    {"temperature", "top_p", "min_tokens", "stop", "n", "presence_penalty", "frequency_penalty", "logit_bias"}
)
_ENGINE_OPTIONS = frozenset(
    {"top_k", "min_p", "repetition_penalty"}
)  # outside both specifications, known to both kinds of engine
_CHAT = ("parallel_tool_calls", "logprobs", "top_logprobs")
_STAYS_HERE = frozenset({"stream", "stream_options", "model", "n_probs", "audio", "moderation"})


def chat_upstream(parsed: Parsed[ChatBody], model: Model) -> dict[str, Any]:
    """The body of an upstream `/chat/completions`; `BadRequest` when a message holds what the model cannot take."""
    body = parsed.body
    out = _sampled(parsed, model)
    out["messages"] = upstream_messages(body, model=model.id, vision="vision" in model.capabilities)
    for name in _CHAT:
        if (value := getattr(body, name)) is not None:
            out[name] = value
    if body.tools:
        out["tools"] = parsed.fields["tools"]
        choice = upstream_tool_choice(body)
        if choice is not None:
            out["tool_choice"] = choice
    if body.response_format is not None and body.response_format.type != "text":
        out["response_format"] = parsed.fields["response_format"]
    effort = body.reasoning_effort or ("medium" if body.prompt_mode == "reasoning" else None)
    if effort is not None:
        out["reasoning_effort"] = effort
    if prefix_of(body) is not None:
        # vLLM's names for it; our engine knows the same two.
        out["continue_final_message"] = True
        out["add_generation_prompt"] = False
    return out


def completion_upstream(parsed: Parsed[CompletionBody], model: Model) -> dict[str, Any]:
    """The body of an upstream `/completions`."""
    body = parsed.body
    if body.prompt == [] or (isinstance(body.prompt, list) and not _is_prompts(body.prompt)):
        raise BadRequest(
            "prompt: must be text, a list of texts, token ids, or a list of lists of token ids.", param="prompt"
        )
    out = _sampled(parsed, model)
    out["prompt"] = body.prompt
    for name in ("suffix", "echo", "best_of", "logprobs"):
        if (value := getattr(body, name)) is not None:
            out[name] = value
    return out


def fim_upstream(parsed: Parsed[FimBody], model: Model) -> dict[str, Any]:
    """The body of an upstream `/completions` that fills in the middle."""
    out = _sampled(parsed, model)
    out["prompt"] = parsed.body.prompt
    if parsed.body.suffix:
        out["suffix"] = parsed.body.suffix
    return out


def embedding_upstream(parsed: Parsed[EmbeddingBody], model: Model) -> dict[str, Any]:
    """The body of an upstream `/embeddings`; sizes and types are ours to make, so plain floats are asked for."""
    body = parsed.body
    if body.input in ("", []) or (isinstance(body.input, list) and not _is_prompts(body.input)):
        raise BadRequest(
            "input: must be a text that is not empty, a list of such, token ids, or a list of lists of token ids.",
            param="input",
        )
    out: dict[str, Any] = {"model": model.upstream_model, "input": body.input, "encoding_format": "float"}
    size = body.output_dimension or body.dimensions
    if size is not None and model.engine == "openai":
        out["dimensions"] = size
    return out


def cache_scope(model: Model, organisation_id: str) -> dict[str, str]:
    """The field that keeps one organisation from seeing in `cached_tokens` what another has asked; only our own engine
    is sure to know it, others might refuse it.
    """
    if model.engine != "llamacpp" or model.kind != "chat":
        return {}
    return {"cache_salt": sha256(f"galerne cache {organisation_id}".encode()).hexdigest()[:32]}


def _sampled(parsed: Parsed[ChatBody | CompletionBody | FimBody], model: Model) -> dict[str, Any]:
    body: Sampled = parsed.body
    out: dict[str, Any] = {"model": model.upstream_model, "stream": True, "stream_options": STREAM_OPTIONS}
    if model.engine == "openai":
        for name in unknown_fields(parsed.fields, type(parsed.body)):
            if name not in _STAYS_HERE:
                out[name] = parsed.fields[name]
    given = parsed.fields.keys()
    for name in given & _ENGINE_OPTIONS:
        if parsed.fields[name] is not None:
            out[name] = parsed.fields[name]
    for name in given & _SAMPLING:
        if (value := getattr(body, name)) is not None:
            out[name] = value
    seed = body.seed if body.seed is not None else body.random_seed
    if seed is not None:
        out["seed"] = seed
    cap = completion_cap(body)
    if cap is not None:
        out["max_tokens"] = cap
    return out


def _is_prompts(value: list[Any]) -> bool:
    if all(isinstance(item, str) and item for item in value):
        return True
    if all(_is_token(item) for item in value):
        return True
    return all(_is_tokens(item) for item in value)


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_token, cast(list[Any], value)))


def _is_token(value: Any) -> bool:
    return type(value) is int and value >= 0
