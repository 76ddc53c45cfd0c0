"""Models that other servers run: the clients' own retries, and what a caller sees of an upstream's failures."""

from collections.abc import Iterator

import openai as openai_errors
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from mistralai.client.utils import BackoffStrategy, RetryConfig
from openai import OpenAI

from tests.serving import Key, Server
from tests.upstreams import ScriptedServer, refuses, says, upstream

HELLO = [{"role": "user", "content": "Hello"}]
REMOTE = "remote/model:1"


@pytest.fixture(scope="module")
def registered(server: Server) -> Iterator[ScriptedServer]:
    with upstream(says("unused")) as other:
        server.add_upstream(REMOTE, other.url, upstream_model="its-own-name")
        yield other


@pytest.fixture
def other(registered: ScriptedServer) -> ScriptedServer:
    registered.received.clear()
    return registered


def patient_openai(server: Server, key: Key) -> OpenAI:
    return OpenAI(base_url=f"{server.address}/v1", api_key=key.secret, max_retries=2)


def test_a_model_added_beside_the_running_server_answers(openai: OpenAI, other: ScriptedServer) -> None:
    other.script = [says("Good ", "morning")]
    answer = openai.chat.completions.create(model=REMOTE, messages=HELLO, temperature=0.5)
    assert answer.choices[0].message.content == "Good morning"
    assert answer.model == REMOTE
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)
    (asked,) = other.received
    assert asked["model"] == "its-own-name"
    assert asked["stream"] is True, "an upstream notices a hang-up only while it streams"
    assert asked["temperature"] == 0.5


def test_openais_client_tries_again_after_a_503(server: Server, key: Key, other: ScriptedServer) -> None:
    other.script = [refuses(503), says("ok")]
    with patient_openai(server, key) as client:
        assert client.chat.completions.create(model=REMOTE, messages=HELLO).choices[0].message.content == "ok"
    assert len(other.received) == 2


def test_openais_client_tries_a_stream_again_after_a_503(server: Server, key: Key, other: ScriptedServer) -> None:
    other.script = [refuses(503), says("ok")]
    with patient_openai(server, key) as client:
        chunks = list(client.chat.completions.create(model=REMOTE, messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "ok"


def test_mistrals_client_tries_again_after_a_503(server: Server, key: Key, other: ScriptedServer) -> None:
    other.script = [refuses(503), says("ok")]
    retries = RetryConfig("backoff", BackoffStrategy(50, 500, 1.5, 10_000), retry_connection_errors=False)
    with Mistral(server_url=server.address, api_key=key.secret, retry_config=retries) as client:
        assert client.chat.complete(model=REMOTE, messages=HELLO).choices[0].message.content == "ok"
    assert len(other.received) == 2


@pytest.mark.parametrize(("given", "seen"), [(500, 502), (401, 502), (404, 502), (503, 503), (429, 429), (400, 400)])
def test_an_upstreams_failure_is_told_without_blaming_the_caller_for_it(
    openai: OpenAI, other: ScriptedServer, given: int, seen: int
) -> None:
    other.script = [refuses(given, retry_after="3")]
    with pytest.raises(openai_errors.APIStatusError) as refused:
        openai.chat.completions.create(model=REMOTE, messages=HELLO)
    assert refused.value.status_code == seen
    if seen in {429, 503}:
        assert refused.value.response.headers["retry-after"] == "3"


def test_an_upstream_that_is_not_there_is_503(server: Server, openai: OpenAI, mistral: Mistral) -> None:
    with upstream(says("never")) as short_lived:
        url = short_lived.url
    server.add_upstream("gone", url)
    with pytest.raises(openai_errors.InternalServerError) as refused:
        openai.chat.completions.create(model="gone", messages=HELLO)
    assert refused.value.status_code == 503
    with pytest.raises(SDKError) as also_refused:
        mistral.chat.complete(model="gone", messages=HELLO)
    assert also_refused.value.status_code == 503


def test_unknown_fields_reach_a_server_whose_options_we_cannot_know(openai: OpenAI, other: ScriptedServer) -> None:
    other.script = [says("ok")]
    openai.chat.completions.create(model=REMOTE, messages=HELLO, extra_body={"guided_regex": "[a-z]+"})
    assert other.received[0]["guided_regex"] == "[a-z]+"
