"""The one tolerant door: bytes become a checked request, or an error that names the field and never its value."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec
from msgspec import Struct

from galerne.gateway.dialect import Dialect
from galerne.gateway.wire.errors import FieldProblem, InvalidFields, UnknownFields
from galerne.gateway.wire.shapes import ChatBody, CompletionBody, EmbeddingBody, FimBody, Sampled
from galerne.kernel import BadRequest

__all__ = [
    "BODIES",
    "COST_HEADER",
    "Body",
    "Endpoint",
    "Parsed",
    "check_strict",
    "completion_cap",
    "decode_object",
    "invalid_field",
    "parse",
    "unknown_fields",
    "wants_cost",
]

Endpoint = Literal["chat.completions", "completions", "fim.completions", "embeddings"]
Body = ChatBody | CompletionBody | FimBody | EmbeddingBody
BodyT = TypeVar("BodyT", bound=ChatBody | CompletionBody | FimBody | EmbeddingBody, covariant=True)

BODIES: dict[Endpoint, type[Body]] = {
    "chat.completions": ChatBody,
    "completions": CompletionBody,
    "fim.completions": FimBody,
    "embeddings": EmbeddingBody,
}

COST_HEADER = b"x-usage-cost"
"""Asks, with `true`, for what `usage: {"include": true}` asks for: for clients that cannot add fields to a body."""

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")
_BYTE = re.compile(r"byte (?P<at>\d+)")
_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)|\[\.\.\.\]")
_ALLOWED = {
    "role": "system, developer, user, assistant or tool",
    "service_tier": "auto, default, standard, standard_only, flex, scale, priority or fast",
    "reasoning_effort": "none, minimal, low, medium, high, xhigh or max",
    "prompt_mode": "reasoning",
    "tool_choice": "auto, none, any, required or an object that names a function",
    "output_dtype": "float, int8, uint8, binary or ubinary",
    "encoding_format": "float or base64",
    "type": "a type that this server knows",
}
# In no published specification, but today's Mistral client sends them, or engines know them.
_DOCUMENTED_EXTRAS = frozenset({"top_k", "min_p", "repetition_penalty", "prompt_logprobs", "top_prompt_logprobs"})


class Parsed(Struct, Generic[BodyT], frozen=True):
    """A request that passed the door: its fields as sent, and the same as a typed struct."""

    fields: dict[str, Any]
    body: BodyT


def invalid_field(path: str, message: str, kind: str = "value_error") -> InvalidFields:
    """The error for one field that is not what it must be; `path` as in `messages[0].role`."""
    return InvalidFields((FieldProblem(path, _steps(path), kind, message),))


def decode_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; `BadRequest` (400) saying at which byte it stops being one."""
    try:
        fields = msgspec.json.decode(raw)
    except UnicodeDecodeError as error:
        raise BadRequest("The body is not valid UTF-8.", code="invalid_utf8") from error
    except RecursionError as error:
        raise BadRequest("The body is nested too deeply.", code="invalid_json") from error
    except msgspec.DecodeError as error:
        found = _BYTE.search(str(error))
        position = int(found["at"]) if found else len(raw)
        raise BadRequest(f"The body is not valid JSON: see byte {position}.", code="invalid_json") from error
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    return cast(dict[str, Any], fields)


def parse(fields: dict[str, Any], shape: type[BodyT]) -> Parsed[BodyT]:
    """`fields` checked against `shape`; `InvalidFields` names the first field at fault."""
    try:
        return Parsed(fields, msgspec.convert(_with_integers(fields), shape))
    except msgspec.ValidationError as error:
        raise InvalidFields((_problem(str(error)),)) from None
    except RecursionError as error:
        raise BadRequest("The body is nested too deeply.", code="invalid_json") from error


def unknown_fields(fields: Mapping[str, Any], shape: type[Body]) -> tuple[str, ...]:
    """The names in `fields` that neither dialect has for this endpoint."""
    known = _known(shape)
    if fields.keys() <= known:
        return ()
    return tuple(name for name in fields if name not in known)


def check_strict(parsed: Parsed[Body], dialect: Dialect) -> None:
    """What only a strict key refuses: unknown fields (`UnknownFields`), and Mistral's narrower temperature."""
    unknown = tuple(name for name in unknown_fields(parsed.fields, type(parsed.body)) if name not in _DOCUMENTED_EXTRAS)
    if unknown:
        raise UnknownFields(unknown)
    temperature = parsed.fields.get("temperature")
    if dialect == "mistral" and isinstance(temperature, int | float) and temperature > 1.5:
        raise invalid_field("temperature", "must be at most 1.5", "less_than_equal")


def completion_cap(body: Sampled) -> int | None:
    """The cap of one answer by either name, the newer one first; None: none was given."""
    return body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens


def wants_cost(header: bytes | None, body: Body) -> bool:
    """Whether the answer's usage shall say what the request cost: by the body's word, else by that of `COST_HEADER`.

    Raises `BadRequest` for a header that says neither `true` nor `false`.
    """
    if body.usage is not None:
        return body.usage.include
    if header is None:
        return False
    said = header.strip().lower()
    if said not in (b"true", b"false"):
        raise BadRequest(f"{COST_HEADER.decode()}: must be true or false.", param=COST_HEADER.decode())
    return said == b"true"


@cache
def _known(shape: type[Body]) -> frozenset[str]:
    return frozenset(shape.__struct_encode_fields__)


def _with_integers(fields: dict[str, Any]) -> dict[str, Any]:
    # JSON has one kind of number: a client that writes 100.0 means 100. Only whole top-level numbers are folded.
    if float not in map(type, fields.values()):
        return fields
    return {
        name: int(value) if type(value) is float and value.is_integer() else value for name, value in fields.items()
    }


def _steps(path: str) -> tuple[str | int, ...]:
    return tuple(int(found[1]) if found[1] else found[2] for found in _STEP.finditer(path) if found[1] or found[2])


def _problem(text: str) -> FieldProblem:
    found = _AT.match(text)
    what, path = (found["what"], found["path"] or "$") if found else (text, "$")
    path = path.removeprefix("$").removeprefix(".").replace("[...]", "")
    missing = _MISSING.search(what)
    if missing:
        path = f"{path}.{missing['name']}" if path else missing["name"]
        return FieldProblem(path, _steps(path), "missing", "this field is required")
    if what.startswith("Invalid enum value"):  # msgspec quotes the value here, and a value may be somebody's text
        last = str(_steps(path)[-1]) if path else ""
        return FieldProblem(
            path, _steps(path), "literal_error", f"must be {_ALLOWED.get(last, 'one of the known values')}"
        )
    kind = "type_error" if "got" in what else "value_error"
    return FieldProblem(path, _steps(path), kind, what[:1].lower() + what[1:].replace("`", "'"))
