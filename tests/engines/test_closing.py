from typing import Any

import pytest

from galerne.engines.llamacpp.closing import closed

NAMED: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
SHUT = {**NAMED, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (NAMED, SHUT),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
        ({"type": "array", "items": NAMED}, {"type": "array", "items": SHUT}),
        ({"anyOf": [NAMED, {"type": "null"}]}, {"anyOf": [SHUT, {"type": "null"}]}),
        ({"$ref": "#/$defs/x", "$defs": {"x": NAMED}}, {"$ref": "#/$defs/x", "$defs": {"x": SHUT}}),
    ],
)
def test_an_object_that_names_its_properties_has_no_others(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {**NAMED, "additionalProperties": True},
        {**NAMED, "patternProperties": {"^x": {}}},
        {**NAMED, "required": ["b"]},
        {**NAMED, "minProperties": 2},
        {**NAMED, "anyOf": [{"properties": {"b": {}}}]},
        {"allOf": [NAMED, {"properties": {"b": {}}}]},
        {"oneOf": [NAMED, {"properties": {"b": {}}}]},
        {"properties": {"x": {"allOf": [NAMED]}}},
        {**NAMED, "$ref": "#/$defs/x", "$defs": {"x": {}}},
    ],
)
def test_where_closing_could_rule_out_values_nothing_changes(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema
