"""Knows what JSON schemas may cost, and refuses those that would keep the engine from everybody else.

A schema is compiled on the thread that generates for all callers, and a hundred bytes can ask for minutes and
gigabytes. The limits are where one request still compiles within a second (measured: docs/log.md). Lengths of strings
cost nothing and have a far limit; counts of items, properties and alternatives cost most. A limit is never quietly
lowered to what can be enforced: the answer might then not keep to its schema.
"""

from collections import Counter
from decimal import Decimal
from math import prod
from typing import Any, cast
from urllib.parse import unquote

from galerne.engines.llamacpp.pattern_cost import unrolled
from galerne.kernel.errors import BadRequest

_DEEPEST = 64
_LARGEST = {
    **dict.fromkeys(("minItems", "maxItems", "minContains", "maxContains", "minProperties", "maxProperties"), 10_000),
    **dict.fromkeys(("minLength", "maxLength"), 100_000),
}
_MOST = {
    **dict.fromkeys(("properties", "required", "anyOf", "oneOf", "allOf", "prefixItems"), 500),
    "enum": 5_000,
    "patternProperties": 50,
}
# What one request may spend on all its schemas together.
_BUDGET = {
    "subschemas": 2_000,
    "values of enum": 20_000,
    "characters in values of enum": 200_000,
    "characters in names and values of const": 12_000,
    "characters in patterns, repetitions written out": 20_000,
    "items of maxItems": 10_000,
}
_LARGEST_PRODUCT = 100_000  # of the counts of arrays within arrays
_LONGEST_TEXT = 2_000  # one name or one value
_LONGEST_PATTERN = 2_000  # with its repetitions written out
_LARGEST_MULTIPLE = 10_000  # the states that a remainder needs; those of several have to be multiplied
_MOST_WAYS = 100
_MOST_PARTS = 1_000
_FAR = 10**9
_MANY_DIGITS = 9
_ONE = frozenset(
    {"items", "additionalItems", "unevaluatedItems", "contains", "additionalProperties", "unevaluatedProperties"}
    | {"propertyNames", "contentSchema", "not", "if", "then", "else"}
)
_MANY = frozenset({"prefixItems", "anyOf", "oneOf", "allOf", "items"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
_ARRAYS = frozenset({"items", "additionalItems", "contains", "unevaluatedItems"})


class SchemaBudget:
    """What is left for the schemas of one request."""

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()
        self._remainders: set[int] = set()

    def spend(self, schema: dict[str, Any], param: str) -> None:
        """Refuses `schema`, which need not be valid, when it costs too much: `BadRequest` naming `param` and the limit.

        Takes time linear in the size of `schema`.
        """
        _Walk(schema, param, self._spent, self._remainders).run()


class _Walk:
    def __init__(self, root: dict[str, Any], param: str, spent: Counter[str], remainders: set[int]) -> None:
        self._root, self._param, self._spent, self._remainders = root, param, spent, remainders
        self._seen: dict[int, dict[str, Any]] = {}
        self._waiting: list[tuple[Any, int, int]] = [(root, 1, 1)]

    def run(self) -> None:
        while self._waiting:
            node, depth, product = self._waiting.pop()
            if not isinstance(node, dict) or id(cast("object", node)) in self._seen:
                continue
            self._seen[id(cast("object", node))] = cast("dict[str, Any]", node)
            self._spend("subschemas", 1)
            self._limit("levels of schemas", depth, _DEEPEST)
            self._node(cast("dict[str, Any]", node), depth, product)
        expansion = _Expansion(self._root, self._param)
        for node in self._seen.values():
            expansion.size(node, 1)

    def _node(self, node: dict[str, Any], depth: int, product: int) -> None:
        self._counts(node)
        self._texts(node)
        self._multiple(node.get("multipleOf"))
        if depth > 1 and isinstance(node.get("$id"), str):
            raise _refusal(self._param, "names a schema within by $id, which this engine does not resolve")
        inner = product * max(1, *(_number(node.get(name)) for name in ("minItems", "maxItems")))
        self._limit("the product of nested minItems or maxItems", inner, _LARGEST_PRODUCT)
        for name, value in node.items():
            for child in _children(name, value):
                self._waiting.append((child, depth + 1, inner if name in _ARRAYS else product))
        if isinstance(node.get("$ref"), str):
            self._waiting.append((_target(self._root, node["$ref"], self._param), 1, 1))

    def _counts(self, node: dict[str, Any]) -> None:
        for name, limit in _LARGEST.items():
            self._limit(name, _number(node.get(name)), limit)
        for name, limit in _MOST.items():
            if isinstance(node.get(name), dict | list):
                self._limit(f"the length of {name}", len(node[name]), limit)
        self._spend("items of maxItems", _number(node.get("maxItems")))

    def _texts(self, node: dict[str, Any]) -> None:
        values = cast("list[Any]", node["enum"]) if isinstance(node.get("enum"), list) else []
        self._spend("values of enum", len(values))
        for value in values:
            self._spend("characters in values of enum", self._text(value))
        for value in [*_names(node), node.get("const")]:
            self._spend("characters in names and values of const", self._text(value))
        patterns: list[Any] = [node.get("pattern")]
        if isinstance(node.get("patternProperties"), dict):
            patterns += list(node["patternProperties"])
        for pattern in patterns:
            if isinstance(pattern, str):
                size = unrolled(pattern)
                self._limit("the length of a pattern, its repetitions written out,", size, _LONGEST_PATTERN)
                self._spend("characters in patterns, repetitions written out", size)

    def _text(self, value: Any) -> int:
        length, waiting = 0, [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, str):
                length += len(part)
            elif isinstance(part, dict):
                found = cast("dict[str, Any]", part)
                waiting += [*found, *found.values()]
            elif isinstance(part, list):
                waiting += cast("list[Any]", part)
            length += 1
        self._limit("the length of a name or value", length, _LONGEST_TEXT)
        return length

    def _multiple(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if not 1e-9 <= value <= 1e15:  # beyond, decimals are not exact
            raise _refusal(self._param, "has a multipleOf that is not between 1e-9 and 1e15")
        self._remainders.add(_remainders(value))
        self._limit("the product of all multipleOf", prod(self._remainders), _LARGEST_MULTIPLE)

    def _spend(self, what: str, amount: int) -> None:
        self._spent[what] += amount
        self._limit(f"the number of {what}", self._spent[what], _BUDGET[what])

    def _limit(self, what: str, value: int, limit: int) -> None:
        if value > limit:
            raise _refusal(self._param, f"is too much to enforce: {what} is more than {limit}")


class _Expansion:
    """Counts what has to be merged where schemas hold for one and the same value: `allOf`, `anyOf`, `oneOf`, `$ref`."""

    def __init__(self, root: dict[str, Any], param: str) -> None:
        self._root, self._param = root, param
        self._sizes: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def size(self, node: Any, depth: int) -> tuple[int, int]:
        """In how many ways a value can match `node`, and how many schemas are looked at to know it."""
        if not isinstance(node, dict):
            return 1, 1
        key = id(cast("object", node))
        if key in self._sizes:
            return self._sizes[key]
        if key in self._open or depth > _DEEPEST:
            raise _refusal(self._param, f"goes by $ref in a circle, or through more than {_DEEPEST} schemas at once")
        self._open.add(key)
        counted = self._counted(cast("dict[str, Any]", node), depth + 1)
        self._open.remove(key)
        self._sizes[key] = counted
        return counted

    def _counted(self, node: dict[str, Any], depth: int) -> tuple[int, int]:
        ways, parts, kinds = 1, 1, 0
        for name in ("anyOf", "oneOf", "allOf", "$ref"):
            if name not in node:
                continue
            kinds += 1
            sizes = [self.size(child, depth) for child in self._in_place(name, node[name])]
            parts += sum(part for _, part in sizes)
            ways *= prod(way for way, _ in sizes) if name in ("allOf", "$ref") else max(1, sum(way for way, _ in sizes))
        if (kinds > 1 or "allOf" in node or "properties" in node) and ways > _MOST_WAYS:
            raise _refusal(self._param, f"combines more than {_MOST_WAYS} alternatives")
        if parts > _MOST_PARTS:
            raise _refusal(self._param, f"combines more than {_MOST_PARTS} schemas for one value")
        return ways, parts

    def _in_place(self, name: str, value: Any) -> list[Any]:
        if name == "$ref":
            return [_target(self._root, value, self._param)] if isinstance(value, str) else []
        return cast("list[Any]", value) if isinstance(value, list) else []


def _children(name: str, value: Any) -> list[Any]:
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        return list(found.values()) if name in _NAMED else [found] if name in _ONE else []
    return cast("list[Any]", value) if isinstance(value, list) and name in _MANY else []


def _target(root: dict[str, Any], reference: str, param: str) -> Any:
    """What a JSON pointer into `root` points at (RFC 6901), None if at nothing; a `$ref` to elsewhere is refused."""
    if reference != "#" and not reference.startswith("#/"):
        raise _refusal(param, "has a $ref to another document or an anchor: only #/… can be followed")
    found: Any = root
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = cast("dict[str, Any]", found).get(name)
        elif isinstance(found, list) and name.isdecimal() and len(name) < _MANY_DIGITS:
            found = next(iter(cast("list[Any]", found)[int(name) : int(name) + 1]), None)
        else:
            return None
    return found


def _names(node: dict[str, Any]) -> set[str]:
    names: set[str] = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
    required: list[Any] = node["required"] if isinstance(node.get("required"), list) else []
    return names | {name for name in required if isinstance(name, str)}


def _number(value: Any) -> int:
    return int(min(value, _FAR)) if isinstance(value, int | float) and value > 0 else 0


def _remainders(value: float) -> int:
    # Whether a decimal number is a multiple of 2s and 5s is seen in its last digits.
    left = int("".join(map(str, Decimal(str(value)).as_tuple().digits)))
    for factor in (2, 5):
        while left % factor == 0:
            left //= factor
    return left


def _refusal(param: str, reason: str) -> BadRequest:
    return BadRequest(f"{param} {reason}", param=param, code="unsupported_schema")
