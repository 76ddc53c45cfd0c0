"""A dialogue as the model sees it: rendered by the very template that serving uses, cut where the assistant speaks."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from galerne.kernel.errors import BadRequest, invariant
from galerne.training.tokens import BOS, EOS

__all__ = ["Segment", "chat_template", "dialogue_segments", "render"]

Segment = tuple[str, bool]
"""A stretch of rendered text, and whether the model is to learn to write it."""


def chat_template() -> str:
    """The Jinja source of the template that ships with the weights."""
    return (files("galerne.training") / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")


def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
    """The prompt text of a conversation. Raises `BadRequest` for a role that the template does not know."""
    return _template().render(messages=messages, tools=tools, bos_token=BOS, eos_token=EOS, add_generation_prompt=True)


def dialogue_segments(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> list[Segment]:
    """A conversation as alternating stretches: prompt (not learnt) and assistant's turn with its end token (learnt)."""
    messages = [_with_parsed_arguments(message) for message in messages]
    segments: list[Segment] = []
    written = ""
    for count, message in enumerate(messages, start=1):
        if message["role"] != "assistant":
            continue
        before, after = render(messages[: count - 1], tools), render(messages[:count], tools)
        invariant(before.startswith(written) and after.startswith(before), "the chat template rewrites earlier turns")
        segments.append((before[len(written) :], False))
        segments.append((after[len(before) :], True))
        written = after
    return segments


def _with_parsed_arguments(message: dict[str, Any]) -> dict[str, Any]:
    # Corpora space their JSON in several ways; the model is taught one.
    calls = message.get("tool_calls")
    if not calls:
        return message
    parsed = [
        {"function": {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in calls
    ]
    return {**message, "tool_calls": parsed}


@cache
def _template() -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    # Jinja's own tojson escapes for HTML and sorts the keys; chat templates mean plain JSON in the order given.
    environment.filters["tojson"] = _plain_json
    environment.globals["raise_exception"] = _refuse  # pyright: ignore[reportArgumentType] - any value will do
    return environment.from_string(chat_template())


def _plain_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _refuse(message: str) -> NoReturn:
    raise BadRequest(message, param="messages")
