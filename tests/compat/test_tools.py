from typing import Any

import pytest
from mistralai.client import Mistral
from openai import OpenAI

from tests.compat.functions import TOOLS, check_call

MESSAGES = [{"role": "user", "content": "What is the weather in Paris today?"}]
NAMED = {"type": "function", "function": {"name": "get_time"}}
Call = tuple[str, str, str]


def openai_calls(client: OpenAI, stream: bool, **options: Any) -> tuple[list[Call], str | None]:
    request = {"model": "brise", "messages": MESSAGES, "tools": TOOLS, **options}
    if not stream:
        choice = client.chat.completions.create(**request).choices[0]
        calls = choice.message.tool_calls or []
        return [(c.id, c.function.name, c.function.arguments) for c in calls], choice.finish_reason
    parts: dict[int, list[str]] = {}
    reason = None
    for chunk in client.chat.completions.create(**request, stream=True):
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for delta in choice.delta.tool_calls or []:
                call = parts.setdefault(delta.index, ["", "", ""])
                call[0] += delta.id or ""
                call[1] += (delta.function and delta.function.name) or ""
                call[2] += (delta.function and delta.function.arguments) or ""
    return [(i, n, a) for i, n, a in parts.values()], reason


def mistral_calls(client: Mistral, stream: bool, **options: Any) -> tuple[list[Call], str | None]:
    request = {"model": "brise", "messages": MESSAGES, "tools": TOOLS, **options}
    if not stream:
        choice = client.chat.complete(**request).choices[0]
        calls = choice.message.tool_calls or []
        return [(c.id or "", c.function.name, str(c.function.arguments)) for c in calls], choice.finish_reason
    found: list[Call] = []
    reason = None
    with client.chat.stream(**request) as events:
        for event in events:
            for choice in event.data.choices:
                reason = choice.finish_reason or reason
                for c in choice.delta.tool_calls or []:
                    found.append((c.id or "", c.function.name, str(c.function.arguments)))
    return found, reason


@pytest.fixture(params=["openai", "mistral"])
def calls(request: pytest.FixtureRequest):
    client = request.getfixturevalue(request.param)
    ask = openai_calls if request.param == "openai" else mistral_calls
    return lambda stream, **options: ask(client, stream, **options)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("choice", ["required", "any"])
def test_a_demanded_call_is_always_a_valid_one(calls, choice: str, stream: bool) -> None:
    for _ in range(3):
        found, reason = calls(stream, tool_choice=choice, temperature=1)
        assert found, "at least one call"
        for call in found:
            check_call(*call)
        assert len({call[0] for call in found}) == len(found), "ids are unique"
        assert reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_named_function_is_the_one_that_is_called(calls, stream: bool) -> None:
    found, _ = calls(stream, tool_choice=NAMED, temperature=1)
    assert found
    for call in found:
        check_call(*call)
        assert call[1] == "get_time"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_without_parallel_calls_there_is_exactly_one(calls, stream: bool) -> None:
    found, reason = calls(stream, tool_choice="required", parallel_tool_calls=False, temperature=1)
    assert len(found) == 1
    check_call(*found[0])
    assert reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_choice_none_never_calls(calls, stream: bool) -> None:
    found, reason = calls(stream, tool_choice="none", max_tokens=12)
    assert found == []
    assert reason in {"stop", "length"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_choice_auto_gives_text_or_valid_calls(calls, stream: bool) -> None:
    found, reason = calls(stream, tool_choice="auto", max_tokens=200, temperature=1)
    if reason == "tool_calls":
        assert found
        for call in found:
            check_call(*call)
    else:
        assert reason in {"stop", "length"}


def test_a_function_without_parameters_can_be_called(openai: OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "ping", "description": "Say that we are here."}}
    options = {"tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}
    request = {"model": "brise", "messages": MESSAGES, "tools": [tool], **options}
    (call,) = openai.chat.completions.create(**request).choices[0].message.tool_calls or []
    assert call.function.name == "ping"
    assert call.function.arguments.startswith("{")
