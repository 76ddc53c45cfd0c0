import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.engines.llamacpp.pattern_cost import unrolled
from galerne.engines.llamacpp.schema_cost import SchemaBudget
from galerne.kernel.errors import BadRequest
from tests.engines.running import Engine

INTEGER = {"type": "integer"}
TEXT = {"type": "string"}
_PLAIN = ["type", "minItems", "maxItems", "enum", "const", "pattern", "multipleOf", "maxLength", "required", "$id"]
_WITHIN = ["items", "properties", "anyOf", "allOf", "$ref", "$defs", "patternProperties", "prefixItems", "not"]
KEYWORDS = st.sampled_from(_PLAIN + _WITHIN)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
REFERENCES = st.sampled_from(
    ["#", "#/$defs/a", "#/items", "#/anyOf/0", "#/anyOf/9", "#/properties/a", "other.json", "#a"]
)
VALUES = st.recursive(
    SCALARS | REFERENCES | st.text("a(){}[]\\,0123456789|^$", max_size=40),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(KEYWORDS | st.just("a"), inside, max_size=5),
    max_leaves=40,
)


def _again(schema: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(schema))  # as it is parsed: no object stands in two places


def _array(**bounds: Any) -> dict[str, Any]:
    return {"type": "array", "items": INTEGER, **bounds}


def _object(count: int, of: Any = INTEGER) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{number}": _again(of) for number in range(count)}}


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = INTEGER
    for _ in range(depth):
        schema = {"type": "object", "properties": {"inner": schema}}
    return schema


def _either(place: int) -> dict[str, Any]:
    return {"anyOf": [_object(1), {"type": "object", "properties": {f"q{place}": TEXT}}]}


def _doubling(steps: int) -> dict[str, Any]:
    levels = {f"d{step}": {"allOf": [{"$ref": f"#/$defs/d{step + 1}"}] * 2} for step in range(steps)}
    return {"$defs": {**levels, f"d{steps}": INTEGER}, "$ref": "#/$defs/d0"}


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": TEXT,
                "children": {"type": "array", "maxItems": 50, "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name"],
        }
    },
    "$ref": "#/$defs/node",
}
REFUSED = {
    "many items": _array(minItems=40_000_000),
    "many items at most": _array(maxItems=10_001),
    "a count that is a fraction": _array(minItems=4e7),
    "a count beyond all floats": _array(minItems=10**400),
    "items of items": _array(minItems=1_000, items=_array(minItems=1_000)),
    "many long arrays": _object(3, _array(maxItems=9_000)),
    "a long text": {"type": "string", "maxLength": 100_001},
    "many properties": {"type": "object", "minProperties": 10_001},
    "many named properties": _object(501),
    "many required properties": {"type": "object", "required": [f"p{number}" for number in range(501)]},
    "repetition of repetition": {"type": "string", "pattern": "^(a{1000}){1000}$"},
    "a sum of repetitions": {"type": "string", "pattern": "a{900}b{900}c{900}"},
    "a repetition without end": {"type": "string", "pattern": "(a{3000,})"},
    "a repetition in the name of a property": {"patternProperties": {"^(a{99}){99}$": INTEGER}},
    "many subschemas": _object(400, _object(10)),
    "many levels": _nested(70),
    "many values": {"enum": list(range(5_001))},
    "much text in values": {"enum": [f"{number} {'x' * 1_500}" for number in range(200)]},
    "a long value": {"const": "x" * 3_000},
    "a long value within a value": {"const": [{"x": ["x" * 3_000]}]},
    "a long name": {"type": "object", "properties": {"x" * 3_000: INTEGER}},
    "a large multiple": {"type": "integer", "multipleOf": 1_000_000_007},
    "a multiple of multiples": {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]},
    "a multiple without end": {"type": "number", "multipleOf": 1e-300},
    "alternatives times alternatives": {"allOf": [_either(place) for place in range(8)]},
    "doubled references": _doubling(12),
    "a reference to itself": {"anyOf": [{"$ref": "#"}, INTEGER]},
    "another document": {"$ref": "https://example.com/schema.json"},
    "an anchor": {"$ref": "#somewhere"},
    "a schema with a name of its own": {"items": {"$id": "https://example.com/x", "type": "integer"}},
    "cost behind a reference": {"$ref": "#/x-own/far", "x-own": {"far": _array(minItems=40_000_000)}},
}
ACCEPTED = {
    "nothing": {},
    "an ordinary object": {**_object(40, {"type": "string", "maxLength": 2_000}), "required": ["p0", "p1"]},
    "a page of text": {"type": "string", "minLength": 1, "maxLength": 100_000},
    "a list of texts": _array(maxItems=1_000, items={"type": "string", "maxLength": 5_000}),
    "a matrix": _array(minItems=100, maxItems=100, items=_array(minItems=100, maxItems=100)),
    "deep nesting": _nested(30),
    "a tree": TREE,
    "all countries": {"oneOf": [{"const": f"country {number}", "title": "a country"} for number in range(250)]},
    "tagged kinds": {"anyOf": [{"type": "object", "properties": {"kind": {"const": f"{n}"}}} for n in range(100)]},
    "a null or a reference": {"$defs": {"a": INTEGER}, "anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]},
    "a date": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$"},
    "cents and dozens": {"anyOf": [{"type": "number", "multipleOf": 0.01}, {"type": "integer", "multipleOf": 12}]},
    "a property that is called like a keyword": {"type": "object", "properties": {"minItems": INTEGER, "$ref": TEXT}},
    "references to one schema": {"$defs": {"a": TEXT}, **_object(90, {"$ref": "#/$defs/a"})},
}


@pytest.mark.parametrize("schema", REFUSED.values(), ids=REFUSED.keys())
def test_schema_that_costs_too_much_is_refused_by_name(schema: dict[str, Any]) -> None:
    begun = time.process_time()
    with pytest.raises(BadRequest) as refused:
        SchemaBudget().spend(schema, "tools[3].function.parameters")
    assert time.process_time() - begun < 0.5
    assert (refused.value.code, refused.value.param) == ("unsupported_schema", "tools[3].function.parameters")
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("schema", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_honest_schema_is_accepted(schema: dict[str, Any]) -> None:
    SchemaBudget().spend(schema, "schema")


def test_refusal_says_which_limit() -> None:
    with pytest.raises(BadRequest, match="minItems is more than 10000"):
        SchemaBudget().spend(_array(minItems=40_000_000), "schema")


def test_all_schemas_of_a_request_share_one_budget() -> None:
    budget = SchemaBudget()
    with pytest.raises(BadRequest) as refused:
        for number in range(100):
            budget.spend(_object(100), f"tools[{number}]")
    assert refused.value.param == "tools[19]"


@settings(deadline=1_000)
@given(st.dictionaries(KEYWORDS, VALUES, max_size=6))
def test_any_json_value_is_accepted_or_refused_and_quickly(schema: dict[str, Any]) -> None:
    with suppress(BadRequest):
        SchemaBudget().spend(schema, "schema")


@settings(deadline=1_000)
@given(st.text("a(){}[]\\,0123456789|^$p?", max_size=300))
def test_any_pattern_has_a_length(pattern: str) -> None:
    assert unrolled(pattern) >= 0


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        ("", 0),
        ("^ab$", 4),
        ("a{3}", 3),
        ("a{2,5}b", 6),
        ("a{7,}", 7),
        ("ab{3}", 4),
        ("(ab{3}){10}", 40),
        ("((a{10}){10}){10}", 1000),
        ("[a-z{9}]{4}", 4),
        (r"[^\]{9}]{4}", 4),
        (r"\{9}", 3),
        (r"\p{L}{3}", 3),
        ("(a|bc){2}", 8),
        (")(a{5}", 5),
        ("a{99999999999999999999}", 999_999_999),
    ],
)
def test_repetitions_are_counted_as_if_written_out(pattern: str, length: int) -> None:
    assert unrolled(pattern) == length


@pytest.mark.parametrize("name", ["many items", "repetition of repetition", "many subschemas"])
def test_engine_refuses_costly_schemas_of_answers_and_tools_at_once(engine: Engine, name: str) -> None:
    schema = REFUSED[name]
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": schema}}}}
    for answer, param in (
        (engine.chat("x", response_format=form), "response_format.json_schema.schema"),
        (engine.complete("x", response_format=form), "response_format.json_schema.schema"),
        (engine.chat("x", tools=[tool]), "tools[0].function.parameters"),
    ):
        assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "unsupported_schema", param)
