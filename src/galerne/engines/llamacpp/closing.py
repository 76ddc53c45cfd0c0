"""Knows how to keep a model from writing properties that nobody asked for.

JSON Schema leaves objects open: whatever is not named may stand there too. A small model then goes on with whatever
comes to mind. Every value of the closed schema is one of the open schema, so nothing is lost but the chatter.
"""

from typing import Any, cast

# Where a schema must hold together with another one, or must not hold, closing one of them can rule out every value.
_ENTANGLING = frozenset(
    {"allOf", "oneOf", "not", "if", "dependentSchemas", "dependentRequired", "unevaluatedProperties", "$dynamicRef"}
)
_OPENING = frozenset({"additionalProperties", "patternProperties", "propertyNames", "minProperties", "anyOf", "$ref"})
_ONE = ("items", "additionalProperties", "contains")
_MANY = ("prefixItems", "anyOf")
_NAMED = ("properties", "$defs", "definitions", "patternProperties")


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema`, its objects closed to properties that they do not name; unchanged where nothing might be left then."""
    return schema if _is_entangled(schema) else _closed(schema)


def _is_entangled(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    node = cast("dict[str, Any]", schema)
    mixed = "properties" in node and ("anyOf" in node or "$ref" in node)
    return mixed or not _ENTANGLING.isdisjoint(node) or any(_is_entangled(each) for each in _subschemas(node))


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    node = cast("dict[str, Any]", schema)
    inside: dict[str, Any] = {name: _closed(node[name]) for name in _ONE if name in node}
    inside |= {name: [_closed(each) for each in node[name]] for name in _MANY if name in node}
    inside |= {name: {key: _closed(each) for key, each in node[name].items()} for name in _NAMED if name in node}
    if _can_be_closed(node):
        inside["additionalProperties"] = False
    return {**node, **inside}


def _can_be_closed(node: dict[str, Any]) -> bool:
    return (
        "properties" in node and _OPENING.isdisjoint(node) and set(node.get("required", ())) <= set(node["properties"])
    )


def _subschemas(node: dict[str, Any]) -> list[Any]:
    found = [node[name] for name in _ONE if name in node]
    found += [each for name in _MANY if name in node for each in node[name]]
    return found + [each for name in _NAMED if name in node for each in node[name].values()]
