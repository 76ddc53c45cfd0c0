import json
import re
from typing import Any

import pytest
from jsonschema import validate

from tests.engines.running import Engine

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
CLOCK = {
    "type": "object",
    "$defs": {"zone": {"enum": ["UTC", "CET"]}},
    "properties": {"zone": {"$ref": "#/$defs/zone"}},
    "required": ["zone"],
    "additionalProperties": False,
}


def tool(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "something", "parameters": schema}}


TOOLS = [tool("get_weather", WEATHER), tool("get_time", CLOCK)]
SCHEMAS = {"get_weather": WEATHER, "get_time": CLOCK}
NAMED = {"type": "function", "function": {"name": "get_time"}}


def _json_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize("seed", range(4))
def test_answer_keeps_to_its_schema(engine: Engine, seed: int) -> None:
    choice = engine.chat("weather", seed=seed, max_tokens=200, response_format=_json_schema(WEATHER)).json["choices"][0]
    assert choice["finish_reason"] == "stop"
    validate(json.loads(choice["message"]["content"]), WEATHER)


def test_json_object_is_an_object(engine: Engine) -> None:
    for seed in range(20):
        answer = engine.chat("x", seed=seed, max_tokens=400, response_format={"type": "json_object"}).json
        text = answer["choices"][0]["message"]["content"]
        assert text.startswith("{")
        if answer["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(text), dict)
            return
    pytest.fail("no answer came to its end")


def test_white_space_is_not_free(engine: Engine) -> None:
    text = engine.chat("x", seed=1, max_tokens=200, response_format=_json_schema(CLOCK)).json["choices"][0]["message"]
    assert text["content"] in ('{"zone": "UTC"}', '{"zone": "CET"}')


@pytest.mark.parametrize("schema", [{"type": "frob"}, {"properties": []}, [], "x", {"$ref": "#/nowhere"}, {"not": {}}])
def test_schema_that_cannot_be_enforced_is_refused_by_name(engine: Engine, schema: Any) -> None:
    for _ in range(2):  # the second time from memory
        answer = engine.chat("x", max_tokens=4, response_format=_json_schema(schema))
        assert answer.status == 400
        assert answer.error["param"] == "response_format.json_schema.schema"


@pytest.mark.parametrize("schema", [{"type": "frob"}, {"required": 3}, "x", {"type": "string"}, {"$schema": []}])
def test_tool_schema_that_is_none_is_refused_by_name(engine: Engine, schema: Any) -> None:
    answer = engine.chat("x", tools=[tool("f", schema)])
    assert (answer.status, answer.error["param"]) == (400, "tools[0].function.parameters")


def test_tool_names_are_checked(engine: Engine) -> None:
    assert engine.chat("x", tools=[tool("a b", {})]).error["param"] == "tools[0].function.name"
    assert engine.chat("x", tools=[tool("f", {}), tool("f", {})]).error["param"] == "tools[1].function.name"
    missing = {"type": "function", "function": {"name": "other"}}
    assert engine.chat("x", tools=TOOLS, tool_choice=missing).error["param"] == "tool_choice.function.name"


@pytest.mark.parametrize("choice", ["required", "any", NAMED])
@pytest.mark.parametrize("seed", range(3))
def test_forced_tool_choice_gives_valid_calls(engine: Engine, choice: Any, seed: int) -> None:
    answer = engine.chat(
        "weather", tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, seed=seed, max_tokens=200
    ).json["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    (call,) = answer["message"]["tool_calls"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", call["id"])
    assert call["type"] == "function"
    name = call["function"]["name"]
    validate(json.loads(call["function"]["arguments"]), SCHEMAS[name])
    if choice is NAMED:
        assert name == "get_time"


def test_streamed_calls_come_in_pieces_as_openai_sends_them(engine: Engine) -> None:
    events = engine.chat("x", tools=TOOLS, tool_choice="required", stream=True, seed=3, max_tokens=400).events
    calls: dict[int, dict[str, Any]] = {}
    for event in events:
        for part in event["choices"][0]["delta"].get("tool_calls", []):
            function = part["function"]
            if "id" in part:
                assert part["index"] == len(calls)
                calls[part["index"]] = {"name": function["name"], "arguments": function["arguments"]}
            else:
                assert set(part) == {"index", "function"}
                calls[part["index"]]["arguments"] += function["arguments"]
    assert calls
    assert events[-1]["choices"][0]["finish_reason"] in ("tool_calls", "length")
    for call in list(calls.values())[:-1]:
        validate(json.loads(call["arguments"]), SCHEMAS[call["name"]])


def test_parallel_calls_can_be_several(engine: Engine) -> None:
    comma = {str(engine.tokens(text)[0]): 20.0 for text in (", ", ",")}
    counts = set[int]()
    for seed in range(6):
        choice = engine.chat(
            "x", tools=[tool("f", CLOCK)], tool_choice="required", seed=seed, max_tokens=400, logit_bias=comma
        ).json["choices"][0]
        counts.add(len(choice["message"]["tool_calls"]))
    assert max(counts) > 1


def test_free_choice_answers_in_text_or_calls(engine: Engine) -> None:
    opener = "9"  # [TOOL_CALLS]
    text = engine.chat("x", tools=TOOLS, max_tokens=8, logit_bias={opener: -100}).json["choices"][0]
    assert "tool_calls" not in text["message"]
    calls = engine.chat("x", tools=TOOLS, max_tokens=300, seed=2, logit_bias={opener: 100}).json["choices"][0]
    assert calls["message"]["tool_calls"]
    function = calls["message"]["tool_calls"][0]["function"]
    validate(json.loads(function["arguments"]), SCHEMAS[function["name"]])


@pytest.mark.parametrize("fields", [{}, {"tools": TOOLS, "tool_choice": "none"}])
def test_no_call_comes_when_none_is_allowed(brise: Engine, fields: dict[str, Any]) -> None:
    choice = brise.chat("What is the time?", seed=1, max_tokens=8, logit_bias={"9": 50}, **fields).json["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert choice["message"]["content"]


def test_call_cut_by_its_length_says_so(engine: Engine) -> None:
    choice = engine.chat("x", tools=TOOLS, tool_choice="required", max_tokens=16).json["choices"][0]
    assert choice["finish_reason"] == "length"


def test_earlier_calls_and_results_are_understood(engine: Engine) -> None:
    called = {"id": "abcdefghi", "type": "function", "function": {"name": "get_time", "arguments": '{"zone": "UTC"}'}}
    messages = [
        {"role": "user", "content": "time"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "noon"},
    ]
    assert engine.post("/v1/chat/completions", {"messages": messages, "tools": TOOLS, "max_tokens": 3}).status == 200
