"""What goes wrong, as each client's own exception; and who may do what."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import openai as openai_errors
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError
from openai import OpenAI

from tests.serving import Key, Server

HELLO = [{"role": "user", "content": "Hello"}]


@contextmanager
def openai_with(server: Server, secret: str, retries: int = 0) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.address}/v1", api_key=secret, max_retries=retries) as client:
        yield client


def openai_chat(server: Server, secret: str, **options: Any):
    with openai_with(server, secret) as client:
        return client.chat.completions.create(**{"model": "brise", "messages": HELLO, "max_tokens": 2, **options})


def mistral_chat(server: Server, secret: str, **options: Any):
    with Mistral(server_url=server.address, api_key=secret) as client:
        return client.chat.complete(**{"model": "brise", "messages": HELLO, "max_tokens": 2, **options})


def refusal_of(server: Server, secret: str, **options: Any) -> SDKError:
    with pytest.raises(SDKError) as refused:
        mistral_chat(server, secret, **options)
    return refused.value


def test_a_wrong_key_is_an_authentication_error(server: Server) -> None:
    with pytest.raises(openai_errors.AuthenticationError) as refused:
        openai_chat(server, "gal_wrong")
    assert refused.value.code == "invalid_api_key"
    assert refused.value.request_id
    found = refusal_of(server, "gal_wrong")
    assert found.status_code == 401
    assert found.headers["mistral-correlation-id"]


def test_an_unknown_model_is_not_found(server: Server, key: Key) -> None:
    with pytest.raises(openai_errors.NotFoundError) as refused:
        openai_chat(server, key.secret, model="no-such-model")
    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"
    found = refusal_of(server, key.secret, model="no-such-model")
    assert found.status_code in {400, 404}, "Mistral's own API answers 400 with code 1500"
    assert '"1500"' in found.body


def test_a_field_out_of_range_is_400_for_openai_and_422_for_mistral(server: Server, key: Key) -> None:
    with pytest.raises(openai_errors.BadRequestError) as refused:
        openai_chat(server, key.secret, temperature=9)
    assert refused.value.param == "temperature"
    with pytest.raises(HTTPValidationError) as invalid:
        mistral_chat(server, key.secret, temperature=9)
    assert invalid.value.status_code == 422
    (problem,) = invalid.value.data.detail or []
    assert problem.loc == ["body", "temperature"]


def test_a_prompt_longer_than_the_context_is_a_bad_request(server: Server, key: Key) -> None:
    with pytest.raises(openai_errors.BadRequestError) as refused:
        openai_chat(server, key.secret, messages=[{"role": "user", "content": "word " * 6000}])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai_errors.BadRequestError):
        openai_chat(server, key.secret, messages=[{"role": "user", "content": "word " * 6000}], stream=True)


def test_a_strict_key_refuses_unknown_fields_in_both_dialects(server: Server) -> None:
    strict = server.new_key(strict=True)
    assert openai_chat(server, strict.secret).choices
    with pytest.raises(openai_errors.UnprocessableEntityError) as refused:
        openai_chat(server, strict.secret, extra_body={"frobnicate": 1})
    assert refused.value.param == "frobnicate"
    body = {"model": "brise", "messages": HELLO, "frobnicate": 1}
    answer = server.call("POST", "/mistral/v1/chat/completions", body, strict.secret)
    assert answer.status == 422
    assert answer.json["detail"][0]["type"] == "extra_forbidden"
    assert answer.json["detail"][0]["loc"] == ["body", "frobnicate"]


def test_a_key_made_strict_at_the_command_line_is_strict(server: Server) -> None:
    made = server.cli("keys", "create", "strict", "--strict", "--json")
    assert made.returncode == 0, made.stderr
    secret = json.loads(made.stdout)["key"]
    assert server.chat(key=secret).status == 200
    assert server.chat(key=secret, frobnicate=1).status == 422


def test_a_revoked_key_is_refused_within_two_seconds(server: Server) -> None:
    key = server.new_key()
    assert server.chat(key=key.secret).status == 200
    assert server.call("DELETE", f"/v1/admin/api-keys/{key.id}").status == 200
    assert_refused_from(server, key, time.monotonic() + 2)
    with pytest.raises(openai_errors.AuthenticationError):
        openai_chat(server, key.secret)


def test_a_key_revoked_at_the_command_line_is_refused_within_two_seconds(server: Server) -> None:
    key = server.new_key()
    assert server.chat(key=key.secret).status == 200
    assert server.cli("keys", "revoke", key.id).returncode == 0
    assert_refused_from(server, key, time.monotonic() + 2)


def assert_refused_from(server: Server, key: Key, end_s: float) -> None:
    asked_s = time.monotonic()
    while server.chat(key=key.secret, max_tokens=1).status != 401:
        assert asked_s < end_s, "the revoked key is still taken"
        time.sleep(0.05)
        asked_s = time.monotonic()


def test_a_key_is_refused_from_the_moment_it_expires(server: Server) -> None:
    for lives_s in (1.5, 6, 24):  # a machine with other work may take longer than a short-lived key lives
        moment = datetime.now(UTC) + timedelta(seconds=lives_s)
        key = server.new_key(expires_at=moment.isoformat())
        taken = server.chat(key=key.secret, max_tokens=1).status
        if taken == 200 or datetime.now(UTC) < moment:
            break
    assert taken == 200
    time.sleep(max(0, (moment - datetime.now(UTC)).total_seconds()) + 0.05)
    refused = server.chat(key=key.secret, max_tokens=1)
    assert refused.status == 401
    assert refused.json["error"]["code"] == "expired_api_key"


def test_a_key_without_the_scope_may_not_run_inference(server: Server) -> None:
    reader = server.new_key(scopes=["usage:read"])
    with pytest.raises(openai_errors.PermissionDeniedError) as refused:
        openai_chat(server, reader.secret)
    assert "inference:run" in refused.value.message
    assert refusal_of(server, reader.secret).status_code == 403
    assert server.call("GET", "/v1/admin/usage", key=reader.secret).status == 200
    runner = server.new_key(scopes=["inference:run"])
    assert server.call("GET", "/v1/admin/usage", key=runner.secret).status == 403
    assert server.call("POST", "/v1/admin/api-keys", {"name": "more"}, runner.secret).status == 403


def test_a_limit_of_requests_is_a_rate_limit_error_with_a_pause(server: Server) -> None:
    limited = server.new_key(requests_per_minute=2)
    for _ in range(2):
        openai_chat(server, limited.secret)
    with pytest.raises(openai_errors.RateLimitError) as refused:
        openai_chat(server, limited.secret)
    headers = refused.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 30
    assert 0 < int(headers["retry-after-ms"]) <= 30_000
    assert headers["x-should-retry"] == "true"
    found = refusal_of(server, limited.secret)
    assert found.status_code == 429
    assert '"1300"' in found.body
    assert int(found.headers["retry-after"]) >= 1


def test_a_limit_of_tokens_is_a_rate_limit_error(server: Server) -> None:
    limited = server.new_key(tokens_per_minute=100)
    with pytest.raises(openai_errors.RateLimitError) as refused:
        for _ in range(10):
            openai_chat(server, limited.secret, max_tokens=40)
    assert "tokens" in refused.value.message


def test_the_clients_own_retry_succeeds_after_the_pause(server: Server) -> None:
    limited = server.new_key(requests_per_minute=40)
    with openai_with(server, limited.secret) as client, pytest.raises(openai_errors.RateLimitError):
        for _ in range(60):
            client.embeddings.create(model="minilm", input="hi")
    with openai_with(server, limited.secret, retries=2) as patient:
        assert patient.embeddings.create(model="minilm", input="hi").data


def test_a_path_that_is_not_there_and_a_wrong_method_have_typed_errors(server: Server, key: Key) -> None:
    missing = server.call("GET", "/v1/nothing", key=key.secret)
    assert missing.status == 404
    assert missing.json["error"]["message"]
    wrong = server.call("GET", "/v1/chat/completions", key=key.secret)
    assert wrong.status == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json["error"]["code"] == "method_not_allowed"
