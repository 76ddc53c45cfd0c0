"""What each dialect gets: golden samples of both wires, and today's official clients."""

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pytest
from mistralai.client import Mistral, errors
from openai import AsyncOpenAI

from galerne.gateway.dialect import choose_dialect, dialect_of_agent, dialect_of_body, split_mount
from tests.gateway.installation import Installation
from tests.gateway.upstream import WORDS, MockEngine

GOLDEN = Path(__file__).parent / "golden"
TEXT = "".join(WORDS)
WEATHER: dict[str, Any] = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def settled(text: str) -> str:
    """The same answer without what differs from run to run: our id, ids made from it, the time."""
    text = re.sub(r"[0-9a-f]{32}", "REQUEST_ID", text)
    text = re.sub(r'"id":"[A-Za-z0-9]{9}"', '"id":"NINE_CHRS"', text)
    return re.sub(r'"created":\d+', '"created":0', text)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
async def test_golden_samples_of_the_wire(gateway: Installation, engine: MockEngine, dialect: str) -> None:
    cases = sorted(path.parent for path in (GOLDEN / dialect).glob("*/request.json"))
    assert len(cases) > 20
    for case in cases:
        request = json.loads((case / "request.json").read_text())
        address, body = f"{gateway.base_url}/{dialect}{request['path']}", request["body"]
        async with gateway.http.post(address, json=body, headers=gateway.headers()) as response:
            answer = settled((await response.read()).decode())
        assert response.status == request["status"], case.name
        assert answer == (case / "answer.txt").read_text(), case.name
        upstream = case / "upstream.json"
        if upstream.exists():
            assert engine.requests[-1] == json.loads(upstream.read_text()), case.name


@pytest.fixture
async def openai_client(gateway: Installation) -> AsyncGenerator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=gateway.base_url + "/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


@pytest.fixture
async def mistral_client(gateway: Installation) -> AsyncGenerator[Mistral]:
    async with Mistral(server_url=gateway.base_url, api_key=gateway.key) as client:
        yield client


async def test_the_openai_client_streams_with_usage(openai_client: AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model="normal",
        messages=[{"role": "user", "content": "Who are you?"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(WORDS)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.model for chunk in chunks} == {"normal"}


async def test_the_openai_client_gets_tool_calls(openai_client: AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model="tool-calls",
        messages=[{"role": "user", "content": "Who are you?"}],
        tools=[WEATHER],  # type: ignore[list-item]
    )
    first, second = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    assert re.fullmatch(r"[A-Za-z0-9]{9}", first.id)
    assert second.id == "abcDEF123"
    assert first.type == "function"
    assert json.loads(first.function.arguments) == {"city": "Brest"}


async def test_the_openai_client_joins_streamed_tool_calls(openai_client: AsyncOpenAI) -> None:
    async with openai_client.chat.completions.stream(
        model="tool-calls",
        messages=[{"role": "user", "content": "Who are you?"}],
        tools=[WEATHER],  # type: ignore[list-item]
    ) as stream:
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("weather", '{"city": "Brest"}'),
        ("tide", "{}"),
    ]


async def test_the_openai_client_raises_its_typed_errors(openai_client: AsyncOpenAI, gateway: Installation) -> None:
    ask = openai_client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        await ask(model="nothing-like-it", messages=[{"role": "user", "content": "x"}])
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as invalid:
        await ask(model="normal", messages=[{"role": "user", "content": "x"}], temperature=7)
    assert invalid.value.param == "temperature"
    with pytest.raises(openai.RateLimitError):
        await ask(model="says-429", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.APIError, match="middle of its answer"):
        async for _ in await ask(model="dies", messages=[{"role": "user", "content": "x"}], stream=True):
            pass
    with pytest.raises(openai.AuthenticationError):
        await openai_client.with_options(api_key="wrong").chat.completions.create(
            model="normal", messages=[{"role": "user", "content": "x"}]
        )


async def test_the_openai_client_gets_embeddings_as_base64_and_decodes_them(openai_client: AsyncOpenAI) -> None:
    answer = await openai_client.embeddings.create(model="embedder", input=["a", "b"], dimensions=2)
    assert [row.index for row in answer.data] == [0, 1]
    assert answer.data[0].embedding == pytest.approx([0.6, -0.8])
    assert answer.usage.prompt_tokens == 5


async def test_the_openai_client_uses_the_older_completions(openai_client: AsyncOpenAI) -> None:
    answer = await openai_client.completions.create(model="normal", prompt="Once")
    assert (answer.choices[0].text, answer.id[:5]) == (TEXT, "cmpl-")
    chunks = [chunk async for chunk in await openai_client.completions.create(model="normal", prompt="x", stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT


async def test_the_mistral_client_streams_with_usage_in_the_chunk_that_finishes(mistral_client: Mistral) -> None:
    stream = await mistral_client.chat.stream_async(
        model="normal", messages=[{"role": "user", "content": "Who are you?"}]
    )
    chunks = [event.data async for event in stream]
    assert "".join(str(chunk.choices[0].delta.content) for chunk in chunks) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(WORDS)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert re.fullmatch(r"[0-9a-f]{32}", chunks[0].id)


async def test_the_mistral_client_gets_whole_tool_calls_streamed_or_not(mistral_client: Mistral) -> None:
    ask: dict[str, Any] = {"model": "tool-calls", "messages": [{"role": "user", "content": "x"}], "tools": [WEATHER]}
    whole = await mistral_client.chat.complete_async(**ask, tool_choice="any", random_seed=7)
    message = whole.choices[0].message
    assert message is not None
    stream = [event.data async for event in await mistral_client.chat.stream_async(**ask)]
    for calls in (message.tool_calls, stream[-1].choices[0].delta.tool_calls):
        assert isinstance(calls, list)
        assert [call.function.arguments for call in calls] == ['{"city": "Brest"}', "{}"]
        assert re.fullmatch(r"[A-Za-z0-9]{9}", calls[0].id or "")
    assert stream[-1].choices[0].finish_reason == "tool_calls"


async def test_the_mistral_client_fills_in_the_middle(mistral_client: Mistral, engine: MockEngine) -> None:
    answer = await mistral_client.fim.complete_async(model="normal", prompt="def f(", suffix="return a")
    assert answer.choices[0].message is not None
    assert answer.choices[0].message.content == TEXT
    assert (engine.requests[0]["prompt"], engine.requests[0]["suffix"]) == ("def f(", "return a")
    stream = await mistral_client.fim.stream_async(model="normal", prompt="def f(", suffix="return a")
    assert "".join([str(event.data.choices[0].delta.content) async for event in stream]) == TEXT


async def test_the_mistral_client_raises_its_typed_errors(mistral_client: Mistral) -> None:
    ask = mistral_client.chat.complete_async
    with pytest.raises(errors.HTTPValidationError) as invalid:
        await ask(model="normal", messages=[{"role": "user", "content": "x"}], temperature=7)
    assert [(detail.loc, detail.type) for detail in invalid.value.data.detail or []] == [
        (["body", "temperature"], "value_error")
    ]
    with pytest.raises(errors.SDKError) as missing:
        await ask(model="nothing-like-it", messages=[{"role": "user", "content": "x"}])
    assert missing.value.status_code == 404


async def test_the_mistral_client_sees_a_broken_stream_as_finish_reason_error(mistral_client: Mistral) -> None:
    stream = await mistral_client.chat.stream_async(model="dies", messages=[{"role": "user", "content": "x"}])
    chunks = [event.data async for event in stream]
    assert chunks[-1].choices[0].finish_reason == "error"


async def test_the_mistral_client_gets_embeddings_of_every_type(mistral_client: Mistral) -> None:
    for dtype, first in (("float", 0.6), ("int8", 76), ("uint8", 204), ("binary", 0), ("ubinary", 128)):
        answer = await mistral_client.embeddings.create_async(
            model="embedder",
            inputs=["a", "b"],
            output_dtype=dtype,
            output_dimension=8,  # type: ignore[arg-type]
        )
        assert len(answer.data) == 2
        assert answer.data[0].embedding is not None
        assert answer.data[0].embedding[0] == first, dtype


@pytest.mark.parametrize(
    ("agent", "dialect"),
    [
        ("OpenAI/Python 3.54.0", "openai"),
        ("AsyncOpenAI/Python 3.54.0", "openai"),
        ("OpenAI/JS 6.1.0", "openai"),
        ("mistral-client-python/3.7.0", "mistral"),
        ("speakeasy-sdk/python 3.7.0 2.935.1 1.0.0 mistralai", "mistral"),
        ("speakeasy-sdk/typescript 1.0 2.0 1.0.0 somethingelse", None),
        ("curl/8.5", None),
        ("", None),
    ],
)
def test_official_clients_are_known_by_their_names(agent: str, dialect: str | None) -> None:
    assert dialect_of_agent(agent) == dialect


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"random_seed": 1}, "mistral"),
        ({"safe_prompt": False}, "mistral"),
        ({"tool_choice": "any"}, "mistral"),
        ({"output_dimension": 8}, "mistral"),
        ({"seed": 1}, "openai"),
        ({"stream_options": {}}, "openai"),
        ({"max_tokens": 5}, None),
        ({"seed": 1, "random_seed": 1}, None),
        ({"seed": None}, None),
    ],
)
def test_a_body_gives_its_dialect_away(body: dict[str, Any], dialect: str | None) -> None:
    assert dialect_of_body(body) == dialect


def test_the_dialect_is_chosen_by_mount_then_key_then_client_then_body() -> None:
    mistral_agent, openai_body = "mistral-client-python/3.7.0", {"seed": 1}
    assert choose_dialect("openai", "mistral", mistral_agent, {"random_seed": 1}) == "openai"
    assert choose_dialect(None, "openai", mistral_agent, {"random_seed": 1}) == "openai"
    assert choose_dialect(None, None, mistral_agent, openai_body) == "mistral"
    assert choose_dialect(None, None, "curl", {"random_seed": 1}) == "mistral"
    assert choose_dialect(None, None, "curl", {}) == "openai"


def test_mounts_force_a_dialect() -> None:
    assert split_mount("/mistral/v1/chat/completions") == ("mistral", "/v1/chat/completions")
    assert split_mount("/openai/v1/embeddings") == ("openai", "/v1/embeddings")
    assert split_mount("/v1/embeddings") == (None, "/v1/embeddings")


async def test_a_key_may_force_its_dialect(gateway: Installation) -> None:
    key = await gateway.new_key(dialect="mistral")
    body = {"model": "normal", "messages": [{"role": "user", "content": "x"}], "temperature": 9}
    status, _, _ = await gateway.post("/v1/chat/completions", body, {"user-agent": "OpenAI/Python 3.54.0"}, key=key)
    assert status == 422
