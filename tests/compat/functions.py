"""The functions and schemas that the tests offer to the model, small enough that eight million weights fill them in."""

import json
import re
from typing import Any

import jsonschema

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city for the next days.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Lyon", "Nantes"]},
                "days": {"type": "integer", "enum": [1, 2, 3]},
                "metric": {"type": "boolean"},
            },
            "required": ["city", "days", "metric"],
            "additionalProperties": False,
        },
    },
}
TIME: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time of day in a zone.",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
TOOLS = [WEATHER, TIME]

VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["good", "bad"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 9},
        "sure": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["verdict", "score", "sure", "tags"],
    "additionalProperties": False,
}

_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")


def check_call(call_id: str, name: str, arguments: str) -> None:
    """Assert that a call is one of `TOOLS`, its arguments fit the schema, and its id is one that every client takes."""
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    assert _CALL_ID.fullmatch(call_id)
    assert name in offered
    jsonschema.validate(json.loads(arguments), offered[name])


def check_verdict(text: str) -> None:
    """Assert that a text is JSON of `VERDICT_SCHEMA`."""
    jsonschema.validate(json.loads(text), VERDICT_SCHEMA)
