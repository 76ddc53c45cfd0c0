"""How a chat request is read and passed on: messages, tools, schemas, Mistral's prefix and safe prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from galerne.gateway.wire.requests import Parsed, invalid_field
from galerne.gateway.wire.shapes import ChatBody, Message, NamedTool, ToolCall
from galerne.kernel import BadRequest

__all__ = [
    "SAFE_PROMPT",
    "check_chat",
    "function_schemas",
    "is_text",
    "prefix_of",
    "upstream_messages",
    "upstream_tool_choice",
]

SAFE_PROMPT = (
    "Be useful and truthful while treating everyone with respect. Decline to produce content that is hateful, harmful, "
    "deceptive or unlawful, and say so plainly when you decline."
)
"""What `safe_prompt` puts before a conversation: our own wording of the guardrail that Mistral documents."""

_TEXT = frozenset({"text", "input_text", "output_text"})
_SKIPPED = frozenset(
    {"thinking", "reference"}
)  # what an earlier answer carried beside its text; templates do not take it back
_PICTURES = frozenset({"image_url", "input_image"})


@dataclass(frozen=True, slots=True)
class _Sight:
    model: str
    vision: bool


def check_chat(parsed: Parsed[ChatBody]) -> None:
    """Raise `InvalidFields` or `BadRequest` for what types cannot say: names that must match, features not offered."""
    body = parsed.body
    for index, message in enumerate(body.messages):
        last = index == len(body.messages) - 1
        if message.prefix and (message.role != "assistant" or not last):
            raise invalid_field(
                f"messages[{index}].prefix", "only the last message may be a prefix, and only the assistant's"
            )
        if message.role == "tool" and message.tool_call_id is None and message.name is None:
            raise invalid_field(
                f"messages[{index}].tool_call_id", "this field is required for the role 'tool'", "missing"
            )
        if message.content is None and not (message.role == "assistant" and message.tool_calls):
            raise invalid_field(f"messages[{index}].content", "this field is required here", "missing")
    if not (body.tools is None and body.tool_choice is None and body.response_format is None):
        _check_tools(body)
    name = _not_offered(parsed.fields, body)
    if name is not None:
        raise BadRequest(f"{name}: this server does not offer this.", param=name, code="unsupported_parameter")
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid_field("top_logprobs", "needs logprobs to be true")


def _check_tools(body: ChatBody) -> None:
    tools = body.tools or []
    for index, tool in enumerate(tools):
        if tool.type != "function" or tool.function is None:
            raise BadRequest(
                f"tools[{index}].type: this server runs no tools itself; only 'function' can be offered.",
                param=f"tools[{index}].type",
                code="unsupported_tool",
            )
    names = {tool.function.name for tool in tools if tool.function}
    if isinstance(body.tool_choice, NamedTool) and body.tool_choice.function.name not in names:
        raise invalid_field("tool_choice.function.name", "names a function that is not among the tools")
    if body.tool_choice in ("any", "required") and not tools:
        raise invalid_field("tool_choice", "demands a tool call, but there are no tools")
    form = body.response_format
    if form and form.type == "json_schema" and (form.json_schema is None or form.json_schema.json_schema is None):
        raise invalid_field("response_format.json_schema.schema", "this field is required", "missing")


def _not_offered(fields: Mapping[str, Any], body: ChatBody) -> str | None:
    # Ignoring these would give an answer that is not what was asked for: a missing guardrail, a missing voice.
    if body.guardrails:
        return "guardrails"
    if body.web_search_options is not None:
        return "web_search_options"
    if body.modalities is not None and body.modalities not in ([], ["text"]):
        return "modalities"
    return next((name for name in ("audio", "moderation") if fields.get(name) is not None), None)


def function_schemas(body: ChatBody) -> list[tuple[str, dict[str, Any]]]:
    """Every JSON Schema of the request with the path of its field."""
    if not body.tools and body.response_format is None:
        return []
    found = [
        (f"tools[{index}].function.parameters", tool.function.parameters)
        for index, tool in enumerate(body.tools or [])
        if tool.function and tool.function.parameters
    ]
    form = body.response_format
    if form and form.json_schema and form.json_schema.json_schema:
        found.append(("response_format.json_schema.schema", form.json_schema.json_schema))
    return found


def is_text(message: Message) -> bool:
    """Whether a message holds nothing but text, so that its bytes bound its tokens."""
    content = message.content
    if content is None or isinstance(content, str):
        return True
    return all(part.get("type") in _TEXT or part.get("type") in _SKIPPED or "refusal" in part for part in content)


def prefix_of(body: ChatBody) -> str | None:
    """The text that the answer must continue (Mistral's `prefix`); None when there is none."""
    last = body.messages[-1]
    return _plain(last) if last.prefix else None


def upstream_tool_choice(body: ChatBody) -> str | dict[str, Any] | None:
    """`tool_choice` as engines know it: Mistral's `any` is OpenAI's `required`."""
    if isinstance(body.tool_choice, NamedTool):
        return {"type": "function", "function": {"name": body.tool_choice.function.name}}
    return "required" if body.tool_choice == "any" else body.tool_choice


def upstream_messages(body: ChatBody, *, model: str, vision: bool) -> list[dict[str, Any]]:
    """The messages as engines know them: text chunks flattened, `safe_prompt` put first, tool calls with text
    arguments.

    Pictures pass when the model has vision, else `BadRequest` names the chunk.
    """
    sight = _Sight(model, vision)
    messages = [_message(message, f"messages[{index}]", sight) for index, message in enumerate(body.messages)]
    if not body.safe_prompt:
        return messages
    first = messages[0]
    if first["role"] == "system" and isinstance(first["content"], str):
        return [{**first, "content": f"{SAFE_PROMPT}\n\n{first['content']}"}, *messages[1:]]
    return [{"role": "system", "content": SAFE_PROMPT}, *messages]


def _message(message: Message, path: str, sight: _Sight) -> dict[str, Any]:
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    out: dict[str, Any] = {"role": role, "content": _content(message.content, path, sight)}
    if message.name is not None:
        out["name"] = message.name
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["tool_calls"] = [_tool_call(call, index) for index, call in enumerate(message.tool_calls)]
    return out


def _tool_call(call: ToolCall, index: int) -> dict[str, Any]:
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return {
        "id": call.id or f"call{index:05d}",
        "type": "function",
        "function": {"name": call.function.name, "arguments": text},
    }


def _plain(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(chunk.get("text", "")) for chunk in content if chunk.get("type") in _TEXT)


def _content(content: str | list[dict[str, Any]] | None, path: str, sight: _Sight) -> str | list[dict[str, Any]] | None:
    if content is None or isinstance(content, str):
        return content
    parts = [
        part
        for index, chunk in enumerate(content)
        if (part := _part(chunk, f"{path}.content[{index}]", sight)) is not None
    ]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(chunk: Mapping[str, Any], path: str, sight: _Sight) -> dict[str, Any] | None:
    kind = chunk.get("type")
    if kind in _TEXT or kind == "refusal":
        text = chunk.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise invalid_field(f"{path}.text", "expected 'str'", "type_error")
        return {"type": "text", "text": text}
    if kind in _SKIPPED:
        return None
    if kind in _PICTURES and sight.vision:
        picture = chunk.get("image_url")
        return {"type": "image_url", "image_url": {"url": picture} if isinstance(picture, str) else picture}
    if not isinstance(kind, str):
        raise invalid_field(f"{path}.type", "this field is required", "missing")
    noun = "pictures" if kind in _PICTURES else "anything but text"
    raise BadRequest(f"{path}: the model '{sight.model}' does not take {noun}.", param=path, code="unsupported_content")
