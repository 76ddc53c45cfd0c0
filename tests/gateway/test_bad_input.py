"""Bad input: the right status in the caller's dialect, the field named, nothing quoted, nothing recorded."""

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from galerne.governance import Permission
from galerne.identity import resolve_key, revoke_key
from galerne.kernel import ManualClock, SystemClock
from tests.gateway.installation import Installation
from tests.gateway.upstream import MockEngine

CHAT = "/v1/chat/completions"
MISTRAL = {"user-agent": "mistral-client-python/3.7.0"}
SECRET = "Who are you, secretly?"
USER: dict[str, Any] = {"role": "user", "content": SECRET}
FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
DEEP: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "wrong"}}}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "normal", "messages": [USER], **more}


INVALID: list[tuple[str, Any, str]] = [
    (CHAT, {"messages": [USER]}, "model"),
    (CHAT, chat(model=7), "model"),
    (CHAT, chat(model=""), "model"),
    (CHAT, {"model": "normal"}, "messages"),
    (CHAT, chat(messages=[]), "messages"),
    (CHAT, chat(messages="hello"), "messages"),
    (CHAT, chat(messages=[{"content": SECRET}]), "messages[0].role"),
    (CHAT, chat(messages=[{"role": SECRET, "content": "x"}]), "messages[0].role"),
    (CHAT, chat(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
    (CHAT, chat(messages=[{"role": "user"}]), "messages[0].content"),
    (CHAT, chat(messages=[USER, {"role": "assistant"}]), "messages[1].content"),
    (CHAT, chat(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
    (CHAT, chat(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
    (CHAT, chat(messages=[{"role": "user", "content": [{"text": "x"}]}]), "messages[0].content[0].type"),
    (CHAT, chat(messages=[{"role": "assistant", "content": "x", "prefix": True}, USER]), "messages[0].prefix"),
    (CHAT, chat(messages=[{**USER, "prefix": True}]), "messages[0].prefix"),
    (CHAT, chat(temperature="hot"), "temperature"),
    (CHAT, chat(temperature=2.5), "temperature"),
    (CHAT, chat(temperature=-0.1), "temperature"),
    (CHAT, chat(top_p=1.5), "top_p"),
    (CHAT, chat(max_tokens=-1), "max_tokens"),
    (CHAT, chat(max_tokens="many"), "max_tokens"),
    (CHAT, chat(max_tokens=1.5), "max_tokens"),
    (CHAT, chat(max_completion_tokens=-5), "max_completion_tokens"),
    (CHAT, chat(max_tokens=10**30), "max_tokens"),
    (CHAT, chat(n=0), "n"),
    (CHAT, chat(n=129), "n"),
    (CHAT, chat(top_logprobs=21, logprobs=True), "top_logprobs"),
    (CHAT, chat(top_logprobs=2), "top_logprobs"),
    (CHAT, chat(stop=["x"] * 17), "stop"),
    (CHAT, chat(stop=[1]), "stop[0]"),
    (CHAT, chat(presence_penalty=3), "presence_penalty"),
    (CHAT, chat(logit_bias={"7": 101}), "logit_bias"),
    (CHAT, chat(stream="yes"), "stream"),
    (CHAT, chat(service_tier="gold"), "service_tier"),
    (CHAT, chat(reasoning_effort="a lot"), "reasoning_effort"),
    (CHAT, chat(response_format={"type": "xml"}), "response_format.type"),
    (CHAT, chat(response_format={"type": "json_schema"}), "response_format.json_schema.schema"),
    (CHAT, chat(tool_choice="required"), "tool_choice"),
    (CHAT, chat(tool_choice="maybe", tools=[FUNCTION]), "tool_choice"),
    (
        CHAT,
        chat(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "g"}}),
        "tool_choice.function.name",
    ),
    (CHAT, chat(tools=[{"type": "function", "function": {"name": "two words"}}]), "tools[0].function.name"),
    (CHAT, chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    (
        CHAT,
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": 1}}]),
        "tools[0].function.parameters",
    ),
    ("/v1/completions", {"model": "normal"}, "prompt"),
    ("/v1/completions", {"model": "normal", "prompt": 5}, "prompt"),
    ("/v1/fim/completions", {"model": "normal", "prompt": ["x"]}, "prompt"),
    ("/v1/embeddings", {"model": "embedder"}, "input"),
    ("/v1/embeddings", {"model": "embedder", "input": "x", "dimensions": 0}, "dimensions"),
    ("/v1/embeddings", {"model": "embedder", "input": "x", "output_dtype": "int4"}, "output_dtype"),
    ("/v1/embeddings", {"model": "embedder", "input": "x", "encoding_format": "hex"}, "encoding_format"),
]


async def test_a_wrong_field_is_named_in_each_dialect_and_its_value_is_not_repeated(
    gateway: Installation, engine: MockEngine
) -> None:
    for path, body, field in INVALID:
        status, error, headers = await gateway.post("/openai" + path, body)
        assert (status, error["error"]["param"]) == (400, field), (body, error)
        assert error["error"]["type"] == "invalid_request_error"
        assert error["message"] == error["error"]["message"]
        assert headers["x-should-retry"] == "false"
        status, error, _ = await gateway.post("/mistral" + path, body)
        assert (status, error["param"], error["object"]) == (422, field, "error"), (body, error)
        (detail,) = error["detail"]
        assert detail["loc"][0] == "body"
        assert detail["loc"][1] == field.split(".")[0].split("[")[0]
        assert "input" not in detail
        assert SECRET not in json.dumps(error)
    assert engine.requests == []
    assert await gateway.usage() == []
    assert await gateway.journal() == []


REFUSED: list[tuple[str, Any, int, str, str | None]] = [
    (CHAT, chat(model="nothing-like-it"), 404, "model_not_found", "model"),
    (CHAT, chat(model="nul\x00byte"), 404, "model_not_found", "model"),
    (CHAT, chat(model="embedder"), 400, "unsupported_model", "model"),
    ("/v1/embeddings", {"model": "normal", "input": "x"}, 400, "unsupported_model", "model"),
    ("/v1/fim/completions", {"model": "no-fim", "prompt": "x"}, 400, "unsupported_model", "model"),
    (CHAT, chat(tools=[{"type": "web_search"}]), 400, "unsupported_tool", "tools[0].type"),
    (CHAT, chat(tools=[DEEP]), 400, "invalid_schema", "tools[0].function.parameters"),
    (
        CHAT,
        chat(response_format={"type": "json_schema", "json_schema": {"schema": {"required": 1}}}),
        400,
        "invalid_schema",
        "response_format.json_schema.schema",
    ),
    (
        CHAT,
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]),
        400,
        "unsupported_content",
        "messages[0].content[0]",
    ),
    (CHAT, chat(guardrails=[{"block_on_error": True}]), 400, "unsupported_parameter", "guardrails"),
    (CHAT, chat(modalities=["text", "audio"]), 400, "unsupported_parameter", "modalities"),
    ("/v1/completions", {"model": "normal", "prompt": []}, 400, "invalid_request", "prompt"),
    ("/v1/completions", {"model": "normal", "prompt": ["x", 1]}, 400, "invalid_request", "prompt"),
    ("/v1/embeddings", {"model": "embedder", "input": []}, 400, "invalid_request", "input"),
    ("/v1/embeddings", {"model": "embedder", "input": ""}, 400, "invalid_request", "input"),
    ("/v1/embeddings", {"model": "embedder", "input": ["x", ""]}, 400, "invalid_request", "input"),
    ("/v1/embeddings", {"model": "embedder", "input": [[]]}, 400, "invalid_request", "input"),
]


async def test_what_cannot_be_done_is_refused_with_a_status_that_both_dialects_share(
    gateway: Installation, engine: MockEngine
) -> None:
    mistral_codes = {"model_not_found": "1500"}
    for path, body, status, code, param in REFUSED:
        answered, error, _ = await gateway.post("/openai" + path, body)
        assert (answered, error["error"]["code"], error["error"]["param"]) == (status, code, param), (body, error)
        answered, error, _ = await gateway.post("/mistral" + path, body)
        assert (answered, error["code"], error["param"]) == (status, mistral_codes.get(code, code), param)
    assert engine.requests == []
    assert await gateway.usage() == []


NO_OBJECTS = [
    (b"", "invalid_json"),
    (b'{"model": "normal", ', "invalid_json"),
    (b'{"model": normal}', "invalid_json"),
    (b'{"model": "normal"} trailing', "invalid_json"),
    (b"[]", "invalid_json"),
    (b'"text"', "invalid_json"),
    (b'{"temperature": NaN}', "invalid_json"),
    (b'{"model": "\xff\xfe"}', "invalid_utf8"),
    (b'{"model": "\\ud800"}', "invalid_json"),
    (b"[" * 100_000, "invalid_json"),
    (b'{"a":' * 50_000, "invalid_json"),
]


async def test_a_body_that_is_no_json_object_is_400(gateway: Installation) -> None:
    for raw, code in NO_OBJECTS:
        async with gateway.http.post(gateway.base_url + CHAT, data=raw, headers=gateway.headers()) as response:
            error = await response.json()
        assert (response.status, error["error"]["code"]) == (400, code), raw[:40]


async def test_malformed_json_says_at_which_byte(gateway: Installation) -> None:
    async with gateway.http.post(
        gateway.base_url + CHAT, data=b'{"model": normal}', headers=gateway.headers()
    ) as response:
        assert "byte 1" in (await response.json())["message"]


async def test_a_body_that_is_too_large_is_413_whether_announced_or_not(gateway: Installation) -> None:
    large = b'{"model": "' + b"x" * (4 * 1024 * 1024) + b'"}'

    async def parts() -> Any:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    async with gateway.http.post(
        gateway.base_url + CHAT, data=io.BytesIO(large), headers=gateway.headers()
    ) as response:
        assert (response.status, (await response.json())["code"]) == (413, "request_too_large")
    async with gateway.http.post(gateway.base_url + CHAT, data=parts(), headers=gateway.headers()) as response:
        assert response.status == 413


async def test_a_wrong_content_type_is_tolerated(gateway: Installation) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {**gateway.headers(), "content-type": kind}
        async with gateway.http.post(gateway.base_url + CHAT, data=json.dumps(chat()), headers=headers) as response:
            assert response.status == 200


async def test_a_compressed_body_is_refused_with_a_reason(gateway: Installation) -> None:
    status, error, _ = await gateway.post(CHAT, chat(), {"content-encoding": "gzip"})
    assert (status, error["code"]) == (400, "unsupported_encoding")


async def test_another_method_is_405_and_says_which_one_to_use(gateway: Installation) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        async with gateway.http.request(method, gateway.base_url + CHAT) as response:
            assert (response.status, response.headers["allow"]) == (405, "POST")


NO_KEYS: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer "},
    {"authorization": "Basic dXNlcg=="},
    {"authorization": "Bearer gal_nothinglikeit"},
    {"authorization": "Bearer " + "x" * 1_000},
    {"authorization": "Bearer kö"},
    {"x-api-key": "nope"},
]


@pytest.mark.parametrize("agent", ["OpenAI/Python 3.54.0", "mistral-client-python/3.7.0"])
async def test_a_request_without_a_valid_key_is_401_with_an_id(
    gateway: Installation, engine: MockEngine, agent: str
) -> None:
    for headers in NO_KEYS:
        sent = {**headers, "user-agent": agent}
        async with gateway.http.post(gateway.base_url + CHAT, json=chat(), headers=sent) as response:
            error = await response.json()
        assert response.status == 401
        assert error["code"] in ("missing_api_key", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["x-request-id"] == response.headers["mistral-correlation-id"]
    assert engine.requests == []
    assert await gateway.usage() == []


async def test_the_key_may_come_as_x_api_key(gateway: Installation) -> None:
    headers = {"x-api-key": gateway.key}
    async with gateway.http.post(gateway.base_url + CHAT, json=chat(), headers=headers) as response:
        assert response.status == 200


async def test_a_key_without_the_permission_is_403(gateway: Installation) -> None:
    key = await gateway.new_key(scopes=frozenset({Permission.MODELS_READ}))
    status, error, _ = await gateway.post(CHAT, chat(), key=key)
    assert (status, error["code"]) == (403, "insufficient_permissions")


async def test_a_revoked_key_stops_working_within_two_seconds(gateway_on_both: Installation) -> None:
    gateway = gateway_on_both
    key = await gateway.new_key()
    assert (await gateway.post(CHAT, chat(), key=key))[0] == 200
    async with gateway.database.transaction() as session:
        grant = await resolve_key(session, gateway.key, datetime.now(UTC))
        await revoke_key(session, grant.actor, gateway.key_ids[key], SystemClock())
    began = asyncio.get_running_loop().time()
    status, error = 200, {}
    while status == 200:
        asked = asyncio.get_running_loop().time()
        status, error, _ = await gateway.post(CHAT, chat(), key=key)
        assert status != 200 or asked - began < 2
    assert (status, error["code"]) == (401, "revoked_api_key")


async def test_an_expired_key_is_401_at_once_though_it_was_cached(gateway: Installation) -> None:
    expiry = datetime.now(UTC) + timedelta(seconds=0.3)
    past = ManualClock(datetime.now(UTC) - timedelta(days=1))
    key = await gateway.new_key(clock=past, expires_at=expiry)
    assert (await gateway.post(CHAT, chat(), key=key))[0] == 200
    await asyncio.sleep(0.35)
    status, error, _ = await gateway.post(CHAT, chat(), key=key)
    assert (status, error["code"]) == (401, "expired_api_key")


async def test_a_strict_key_refuses_unknown_fields_and_names_them(gateway: Installation, engine: MockEngine) -> None:
    strict = await gateway.new_key(strict=True)
    for mount in ("/openai", "/mistral"):
        status, error, _ = await gateway.post(mount + CHAT, chat(surprise=1), key=strict)
        assert (status, error["code"], error["param"]) == (422, "extra_forbidden", "surprise")
        assert error["detail"] == [
            {"type": "extra_forbidden", "loc": ["body", "surprise"], "msg": "Extra inputs are not permitted"}
        ]
    assert (await gateway.post("/openai" + CHAT, chat(temperature=1.7), key=strict))[0] == 200
    assert (await gateway.post("/mistral" + CHAT, chat(temperature=1.7), key=strict))[0] == 422
    assert (await gateway.post("/mistral" + CHAT, chat(temperature=1.7)))[0] == 200


async def test_unknown_fields_pass_to_engines_that_we_do_not_know_and_not_to_ours(
    gateway: Installation, engine: MockEngine
) -> None:
    more = {"surprise": 1, "top_k": 3, "user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}
    await gateway.post(CHAT, chat(**more))
    await gateway.post(CHAT, {**chat(**more), "model": "embedded"})
    external, embedded = engine.requests
    assert (external["surprise"], external["top_k"]) == (1, 3)
    assert embedded["top_k"] == 3
    assert "surprise" not in embedded
    for ours in ("user", "metadata", "store", "service_tier"):
        assert ours not in external
        assert ours not in embedded


async def test_limits_refuse_with_the_time_to_wait_in_both_dialects(gateway: Installation, engine: MockEngine) -> None:
    key = await gateway.new_key(requests_per_minute=2)
    for _ in range(2):
        status, _, headers = await gateway.post(CHAT, chat(), key=key)
        assert (status, headers["x-ratelimit-limit-requests"], headers["x-ratelimit-limit-req-minute"]) == (
            200,
            "2",
            "2",
        )
    assert headers["x-ratelimit-remaining-requests"] == "0"
    status, error, headers = await gateway.post("/openai" + CHAT, chat(), key=key)
    assert (status, error["error"]["code"], error["error"]["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert 25 < int(headers["retry-after"]) <= 30
    assert 25_000 < int(headers["retry-after-ms"]) <= 30_000
    assert headers["x-should-retry"] == "true"
    assert headers["x-ratelimit-remaining-requests"] == headers["x-ratelimit-remaining-req-minute"] == "0"
    status, error, _ = await gateway.post("/mistral" + CHAT, chat(), key=key)
    assert (status, error["code"], error["type"]) == (429, "1300", "rate_limited")
    assert len(await gateway.usage()) == 2


async def test_tokens_are_reserved_at_admission_and_corrected_at_settlement(
    gateway: Installation, engine: MockEngine
) -> None:
    key = await gateway.new_key(tokens_per_minute=1_500)
    _, _, first = await gateway.post(CHAT, chat(max_tokens=1_000), key=key)
    assert int(first["x-ratelimit-tokens-query-cost"]) > 1_000
    status, _, second = await gateway.post(CHAT, chat(max_tokens=1_000), key=key)
    assert status == 200, "the first reservation was given back but for what was used"
    assert int(second["x-ratelimit-remaining-tokens-minute"]) >= 400
    status, _, _ = await gateway.post(CHAT, chat(model="nothing-like-it", max_tokens=1_000), key=key)
    assert status == 404


async def test_a_database_that_is_down_is_503_never_401(gateway: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.gateway.reader, "_connection", None)
    monkeypatch.setattr(gateway.gateway.reader, "_path", Path("/nowhere/galerne.db"))
    status, error, headers = await gateway.post(CHAT, chat())
    assert (status, error["code"], headers["retry-after"]) == (503, "database_unavailable", "1")
