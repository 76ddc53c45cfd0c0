"""Bytes that no client sends: each gets the right status and a message that names the field; nothing of it is kept."""

import json
import socket
from dataclasses import dataclass
from typing import Any

import pytest

from tests.serving import Key, Server

SECRET_WORDS = "zanzibarine-quincunx"
CHAT = "/v1/chat/completions"


def chat(**fields: Any) -> bytes:
    body = {"model": "brise", "messages": [{"role": "user", "content": SECRET_WORDS}], **fields}
    return json.dumps(body).encode()


def tool(**function: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", **function}}]


@dataclass(frozen=True)
class Bad:
    body: bytes
    status: int
    names: str
    path: str = CHAT


CASES = {
    "empty body": Bad(b"", 400, "JSON"),
    "cut off": Bad(b'{"model": "brise", "messages": [{"content": "zanzibarine-quincunx', 400, "JSON"),
    "not an object": Bad(b'["zanzibarine-quincunx"]', 400, "object"),
    "two objects": Bad(chat() + chat(), 400, "JSON"),
    "invalid UTF-8": Bad(chat().replace(b"-", b"\xff"), 400, "UTF-8"),
    "lone surrogate": Bad(chat().replace(b"zanz", b"\\ud800"), 400, ""),
    "nested too deeply": Bad(chat(metadata=1).replace(b": 1}", b": " + b"[" * 5000 + b"]" * 5000 + b"}"), 400, ""),
    "ten megabytes": Bad(chat(padding="x" * 10_000_000), 413, "4194304"),
    "no model": Bad(b'{"messages": [{"role": "user", "content": "zanzibarine-quincunx"}]}', 400, "model"),
    "model of the wrong type": Bad(chat(model=["zanzibarine-quincunx"]), 400, "model"),
    "unknown model": Bad(chat(model="no-such-model"), 404, "model"),
    "model with control characters": Bad(chat(model="bri\x00se"), 404, "model"),
    "no messages": Bad(b'{"model": "brise"}', 400, "messages"),
    "empty messages": Bad(chat(messages=[]), 400, "messages"),
    "messages as text": Bad(chat(messages=SECRET_WORDS), 400, "messages"),
    "unknown role": Bad(chat(messages=[{"role": SECRET_WORDS, "content": "x"}]), 400, "messages[0].role"),
    "content as number": Bad(chat(messages=[{"role": "user", "content": 5}]), 400, "messages[0].content"),
    "content as object": Bad(chat(messages=[{"role": "user", "content": {"a": 1}}]), 400, "messages[0].content"),
    "user without content": Bad(chat(messages=[{"role": "user"}]), 400, "messages[0].content"),
    "picture": Bad(
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": SECRET_WORDS}}]}]),
        400,
        "messages[0].content[0]",
    ),
    "negative max_tokens": Bad(chat(max_tokens=-1), 400, "max_tokens"),
    "max_tokens as text": Bad(chat(max_tokens="ten"), 400, "max_tokens"),
    "fractional max_tokens": Bad(chat(max_tokens=1.5), 400, "max_tokens"),
    "huge max_tokens": Bad(chat(max_tokens=10**30), 400, "max_tokens"),
    "temperature out of range": Bad(chat(temperature=-0.1), 400, "temperature"),
    "temperature as NaN": Bad(chat(temperature=1).replace(b": 1", b": NaN"), 400, "JSON"),
    "top_p out of range": Bad(chat(top_p=1.5), 400, "top_p"),
    "n of nought": Bad(chat(n=0), 400, "n"),
    "stream as text": Bad(chat(stream="yes"), 400, "stream"),
    "logit_bias for no token": Bad(chat(logit_bias={"word": 1}), 400, "logit_bias"),
    "top_logprobs without logprobs": Bad(chat(top_logprobs=3), 400, "top_logprobs"),
    "too many stops": Bad(chat(stop=["x"] * 17), 400, "stop"),
    "unknown response format": Bad(chat(response_format={"type": "yaml"}), 400, "response_format.type"),
    "schema missing": Bad(chat(response_format={"type": "json_schema"}), 400, "response_format.json_schema.schema"),
    "schema that is none": Bad(
        chat(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": 5}}}),
        400,
        "response_format.json_schema.schema",
    ),
    "tool schema that is none": Bad(
        chat(tools=tool(parameters={"type": "objekt"})), 400, "tools[0].function.parameters"
    ),
    "tool schema as text": Bad(chat(tools=tool(parameters=SECRET_WORDS)), 400, "tools[0].function.parameters"),
    "tool without a name": Bad(chat(tools=[{"type": "function", "function": {}}]), 400, "tools[0].function.name"),
    "tool with a name that none has": Bad(chat(tools=tool(name="a b")), 400, "tools[0].function.name"),
    "tool that we do not run": Bad(chat(tools=[{"type": "web_search"}]), 400, "tools[0].type"),
    "choice without tools": Bad(chat(tool_choice="required"), 400, "tool_choice"),
    "choice of an unknown function": Bad(
        chat(tools=tool(), tool_choice={"type": "function", "function": {"name": "g"}}), 400, "tool_choice"
    ),
    "prefix in the middle": Bad(
        chat(
            messages=[{"role": "assistant", "content": SECRET_WORDS, "prefix": True}, {"role": "user", "content": "x"}]
        ),
        400,
        "messages[0].prefix",
    ),
    "guardrails": Bad(chat(guardrails=[{"block_on_error": True}]), 400, "guardrails"),
    "completion without prompt": Bad(b'{"model": "brise"}', 400, "prompt", "/v1/completions"),
    "completion with mixed prompt": Bad(b'{"model": "brise", "prompt": ["a", 1]}', 400, "prompt", "/v1/completions"),
    "token out of range": Bad(b'{"model": "brise", "prompt": [999999]}', 400, "prompt", "/v1/completions"),
    "embedding of nothing": Bad(b'{"model": "minilm", "input": []}', 400, "input", "/v1/embeddings"),
    "embedding of an empty text": Bad(b'{"model": "minilm", "input": ""}', 400, "input", "/v1/embeddings"),
    "embedding with odd dtype": Bad(
        b'{"model": "minilm", "input": "x", "output_dtype": "zanzibarine-quincunx"}',
        422,
        "output_dtype",
        "/v1/embeddings",
    ),
    "fim without prompt": Bad(b'{"model": "brise"}', 422, "prompt", "/v1/fim/completions"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_input_names_the_field_and_stays_out_of_answer_and_log(server: Server, key: Key, case: Bad) -> None:
    before = len(server.logged())
    answer = server.call("POST", case.path, case.body, key.secret)
    assert answer.status == case.status, answer.body[:500]
    error = answer.json["error"]
    assert error["message"]
    assert case.names.lower() in f"{error['message']} {error['param']}".lower()
    assert answer.json["message"] == error["message"], "Mistral's clients read the top level"
    assert answer.headers["x-request-id"]
    said = answer.body.decode() + server.logged_with(answer, before)
    assert SECRET_WORDS not in said.replace('"no-such-model"', "")
    assert key.secret not in said
    assert "Traceback" not in said
    assert ".py" not in answer.body.decode()


@pytest.mark.parametrize(
    "presented",
    ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer gal_" + "x" * 40, "Bearer " + "y" * 600, "Bearer k\xe9y"],
)
def test_a_missing_or_malformed_key_is_401(server: Server, presented: str) -> None:
    raw = raw_request(server, chat(), authorization=presented)
    assert raw.startswith(b"HTTP/1.1 401 ")
    assert b"Traceback" not in raw
    assert presented[-40:].encode("latin-1") not in raw or not presented.startswith("Bearer gal_")


def test_a_key_in_the_other_header_is_taken(server: Server, key: Key) -> None:
    body = chat(max_tokens=1)
    assert raw_request(server, body, **{"x-api-key": key.secret}).startswith(b"HTTP/1.1 200 ")


def test_a_compressed_body_is_refused(server: Server, key: Key) -> None:
    raw = raw_request(server, b"\x1f\x8b", authorization=f"Bearer {key.secret}", **{"content-encoding": "gzip"})
    assert raw.startswith(b"HTTP/1.1 400 ")


def test_a_body_of_another_media_type_is_read_as_json(server: Server, key: Key) -> None:
    headers = {"authorization": f"Bearer {key.secret}", "content-type": "text/plain"}
    assert raw_request(server, chat(max_tokens=1), **headers).startswith(b"HTTP/1.1 200 ")


def test_a_header_that_is_not_http_is_answered_with_400(server: Server) -> None:
    with socket.create_connection(server.host_and_port, timeout=10) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_trace(server: Server, key: Key) -> None:
    before = len(server.usage(key))
    with socket.create_connection(server.host_and_port, timeout=10) as connection:
        connection.sendall(head(len(chat()), authorization=f"Bearer {key.secret}") + chat()[:20])
    assert server.chat(key=key.secret, max_tokens=1).status == 200
    assert len(server.usage(key)) == before + 1


def test_the_log_of_a_good_request_holds_neither_prompt_nor_answer_nor_key(server: Server, key: Key) -> None:
    before = len(server.logged())
    answer = server.chat(SECRET_WORDS, key=key.secret, max_tokens=24, min_tokens=24)
    line = server.logged_with(answer, before)
    assert SECRET_WORDS not in line
    assert key.secret not in line
    assert answer.json["choices"][0]["message"]["content"] not in line


def head(length: int, **headers: str) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"content-length: {length}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def raw_request(server: Server, body: bytes, **headers: str) -> bytes:
    with socket.create_connection(server.host_and_port, timeout=30) as connection:
        connection.sendall(head(len(body), **headers) + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))
