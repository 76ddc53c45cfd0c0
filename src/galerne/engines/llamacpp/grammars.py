"""Knows how JSON schemas and tool choices become a grammar that the sampler enforces.

The grammars are written in llguidance's Lark dialect (guidance-ai/llguidance, docs/syntax.md), which llama.cpp is built
with: `%json {...}` embeds a schema, `<[7]>` is the token of id 7, and ordinary text never matches a control token.
"""

import json
import re
from typing import Any, cast

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from galerne.engines.llamacpp.closing import closed
from galerne.engines.llamacpp.schema_cost import SchemaBudget
from galerne.kernel.errors import BadRequest

_HEADER = "%llguidance {}\n"
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_MOST_CALLS = 16
# One spelling of white space, the one that Python's json.dumps writes: a free one lets a small model write spaces until
# its tokens are spent.
_SPELLING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def check_schema(schema: object, param: str, budget: SchemaBudget) -> dict[str, Any]:
    """`schema` if it is a JSON Schema (the draft that it names, else 2020-12) within `budget`, which it spends.

    Raises `BadRequest` naming `param`. Takes up to a second for the largest schemas: not for the event loop.
    """
    if not isinstance(schema, dict):
        raise BadRequest(f"{param} must be a JSON Schema object", param=param, code="invalid_schema")
    checked = cast("dict[str, Any]", schema)
    if not isinstance(checked.get("$schema", ""), str):
        raise BadRequest(f"{param}['$schema'] must be text", param=param, code="invalid_schema")
    budget.spend(checked, param)
    try:
        validator_for(checked).check_schema(checked)
    except SchemaError as error:
        where = "".join(f"[{part!r}]" for part in error.absolute_path)
        raise BadRequest(
            f"{param}{where} is not valid JSON Schema: {error.message}", param=param, code="invalid_schema"
        ) from error
    return checked


def check_tool_name(name: str, param: str) -> str:
    """`name` if it can be a function's; raises `BadRequest` naming `param`."""
    if not _TOOL_NAME.fullmatch(name):
        raise BadRequest(
            f"{param} must be 1 to 64 letters, digits, underscores, dots or dashes", param=param, code="invalid_tool"
        )
    return name


def json_rule(schema: dict[str, Any]) -> str:
    """The rule for a value of `schema`, with no more properties than it names."""
    return "%json " + json.dumps({**closed(schema), "x-guidance": _SPELLING})


def any_object_rule() -> str:
    """The rule for any JSON object."""
    return json_rule({"type": "object"})


def calls_rules(tools: dict[str, dict[str, Any]], opener: int, *, parallel: bool) -> str:
    """Rules for `calls`: the token `opener`, then a JSON list of calls of `tools`, which maps names to schemas.

    The list is spelt exactly as `tool_calls.CallReader` reads it.
    """
    rules = [
        f"call{index}: {_literal(_call_head(name))} {json_rule(schema)} {_literal('}')}"
        for index, (name, schema) in enumerate(tools.items())
    ]
    any_call = " | ".join(f"call{index}" for index in range(len(tools)))
    more = f" ({_literal(', ')} call){{0,{_MOST_CALLS - 1}}}" if parallel else ""
    return "\n".join([f"calls: <[{opener}]> {_literal('[')} call{more} {_literal(']')}", f"call: {any_call}", *rules])


def grammar(start: str, rules: str = "") -> str:
    """A whole grammar from the right-hand side of its start rule and further rules."""
    return f"{_HEADER}start: {start}\n{rules}\n"


def probing(source: str, token: int) -> str:
    """`source` changed so that it first demands `token`.

    llama.cpp drops a grammar that it cannot compile and generates freely; if the first token is not this one, it did.
    """
    head, body = source.split("start: ", 1)
    start, rest = body.split("\n", 1)
    return f"{head}start: <[{token}]> wanted\nwanted: {start}\n{rest}"


def _call_head(name: str) -> str:
    return '{"name": ' + json.dumps(name) + ', "arguments": '


def _literal(text: str) -> str:
    return json.dumps(text)
