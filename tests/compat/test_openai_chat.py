import pytest
from openai import AsyncOpenAI, OpenAI

from tests.compat.functions import VERDICT_SCHEMA, check_verdict
from tests.serving import Key, Server

HELLO = [{"role": "user", "content": "Tell me about the sea."}]


def ask(client: OpenAI, **options):
    return client.chat.completions.create(**{"model": "brise", "messages": HELLO, "max_tokens": 12, **options})


def text_of(client: OpenAI, **options) -> str:
    return ask(client, **options).choices[0].message.content or ""


def streamed_text(chunks) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_an_answer_has_id_model_choice_and_usage(openai: OpenAI) -> None:
    answer = ask(openai)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "brise"
    assert answer.created > 1_700_000_000
    assert answer.system_fingerprint
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert isinstance(choice.message.content, str)
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens is not None


def test_a_stream_says_what_the_whole_answer_says(openai: OpenAI) -> None:
    whole = text_of(openai, temperature=0)
    chunks = list(ask(openai, temperature=0, stream=True))
    assert streamed_text(chunks) == whole
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in {"stop", "length"}
    assert len(chunks) > 3, "a stream comes in parts"


def test_a_stream_tells_its_usage_last_and_only_when_asked(openai: OpenAI) -> None:
    without = list(ask(openai, stream=True))
    assert all(chunk.usage is None for chunk in without)
    asked = list(ask(openai, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.usage is None for chunk in asked[:-1])
    assert asked[-1].choices == []
    assert asked[-1].usage is not None
    assert asked[-1].usage.prompt_tokens > 0
    assert asked[-1].usage.completion_tokens > 0


def test_the_clients_stream_accumulator_gathers_a_whole_answer(openai: OpenAI) -> None:
    with openai.chat.completions.stream(model="brise", messages=HELLO, max_tokens=8, temperature=0) as stream:
        kinds = {event.type for event in stream}
        gathered = stream.current_completion_snapshot.choices[0]
    assert {"chunk", "content.delta"} <= kinds
    assert gathered.message.content == text_of(openai, max_tokens=8, temperature=0)
    assert gathered.finish_reason in {"stop", "length"}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_capped_answer_ends_with_length(openai: OpenAI, name: str, stream: bool) -> None:
    options = {"max_tokens": None, name: 3, "extra_body": {"min_tokens": 3}}
    if stream:
        chunks = list(ask(openai, **options, stream=True, stream_options={"include_usage": True}))
        assert chunks[-2].choices[0].finish_reason == "length"
        usage = chunks[-1].usage
    else:
        answer = ask(openai, **options)
        assert answer.choices[0].finish_reason == "length"
        usage = answer.usage
    assert usage is not None
    assert usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_before_itself(openai: OpenAI, stream: bool) -> None:
    whole = text_of(openai, temperature=0, max_tokens=24, extra_body={"min_tokens": 24})
    assert len(whole) > 8
    stop = whole[6:8]
    options = {"temperature": 0, "max_tokens": 24, "stop": ["never-written", stop], "stream": stream}
    if stream:
        chunks = list(ask(openai, **options))
        text, reason = streamed_text(chunks), chunks[-1].choices[0].finish_reason
    else:
        choice = ask(openai, **options).choices[0]
        text, reason = choice.message.content, choice.finish_reason
    assert text == whole[: whole.index(stop)]
    assert reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_two_choices_come_with_their_indices(openai: OpenAI, stream: bool) -> None:
    options = {"n": 2, "temperature": 1, "seed": 5}
    if stream:
        chunks = list(ask(openai, **options, stream=True))
        ended = {c.index for chunk in chunks for c in chunk.choices if c.finish_reason}
        assert ended == {0, 1}
    else:
        answer = ask(openai, **options)
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert answer.choices[0].message.content != answer.choices[1].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= 24


def test_a_seed_repeats_the_text_and_another_does_not(openai: OpenAI) -> None:
    first = text_of(openai, seed=11, temperature=1, max_tokens=16)
    assert text_of(openai, seed=11, temperature=1, max_tokens=16) == first
    assert text_of(openai, seed=12, temperature=1, max_tokens=16) != first


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_cover_every_token(openai: OpenAI, stream: bool) -> None:
    # Without the model's own penalty for repetitions the likeliest token is the one that is written.
    plain = {"temperature": 0, "extra_body": {"repetition_penalty": 1}}
    options = {"logprobs": True, "top_logprobs": 3, "stream": stream, **plain}
    if stream:
        chunks = [chunk.choices[0] for chunk in ask(openai, **options) if chunk.choices]
        text = "".join(choice.delta.content or "" for choice in chunks)
        tokens = [token for choice in chunks if choice.logprobs for token in choice.logprobs.content or []]
    else:
        choice = ask(openai, **options).choices[0]
        assert choice.logprobs is not None
        text, tokens = choice.message.content or "", choice.logprobs.content or []
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode(errors="replace").startswith(text)
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert max(top.logprob for top in token.top_logprobs) == pytest.approx(token.logprob, abs=1e-4)


def test_without_asking_there_are_no_log_probabilities(openai: OpenAI) -> None:
    assert ask(openai).choices[0].logprobs is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_json_schema_is_kept_to(openai: OpenAI, stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": VERDICT_SCHEMA, "strict": True}}
    options = {"response_format": form, "max_tokens": 200, "temperature": 1, "seed": 3}
    text = streamed_text(ask(openai, **options, stream=True)) if stream else text_of(openai, **options)
    check_verdict(text)


def test_json_object_mode_begins_an_object(openai: OpenAI) -> None:
    text = text_of(openai, response_format={"type": "json_object"}, max_tokens=40)
    assert text.startswith("{")


def test_a_conversation_with_all_roles_and_content_parts_is_understood(openai: OpenAI) -> None:
    call = {"id": "abcDEF123", "type": "function", "function": {"name": "get_time", "arguments": '{"zone": "UTC"}'}}
    answer = ask(
        openai,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "time is it?"}]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abcDEF123", "content": "12:30"},
            {"role": "user", "content": "Thank you."},
        ],
    )
    assert isinstance(answer.choices[0].message.content, str)


def test_sampling_options_of_the_specification_are_taken(openai: OpenAI) -> None:
    answer = ask(
        openai,
        temperature=0.7,
        top_p=0.9,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"5": 1},
        user="someone",
        metadata={"purpose": "test"},
        store=False,
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        reasoning_effort="none",
        extra_body={"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1},
    )
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_unknown_fields_pass_by_default(openai: OpenAI) -> None:
    assert ask(openai, extra_body={"frobnicate": {"deep": 1}}).choices


def test_the_request_id_is_on_the_answer_and_names_the_usage_row(openai: OpenAI, server: Server, key: Key) -> None:
    raw = openai.chat.completions.with_raw_response.create(model="brise", messages=HELLO, max_tokens=2)
    request_id = raw.headers["x-request-id"]
    assert raw.headers["mistral-correlation-id"] == request_id
    answer = raw.parse()
    assert answer._request_id == request_id
    row = next(row for row in server.usage(key) if row["id"] == request_id)
    assert answer.usage is not None
    assert row["input_tokens"] + row["cached_tokens"] == answer.usage.prompt_tokens
    assert row["output_tokens"] == answer.usage.completion_tokens
    assert (row["model"], row["endpoint"], row["dialect"]) == ("brise", "chat.completions", "openai")
    assert (row["status"], row["outcome"], row["partial"], row["streamed"]) == (200, "completed", False, False)


def test_rate_limit_headers_of_both_families_are_there(server: Server) -> None:
    limited = server.new_key(requests_per_minute=6, tokens_per_minute=6_000)  # refills slowly enough to see
    with OpenAI(base_url=f"{server.address}/v1", api_key=limited.secret, max_retries=0) as client:
        headers = client.chat.completions.with_raw_response.create(model="brise", messages=HELLO, max_tokens=2).headers
    assert headers["x-ratelimit-remaining-requests"] == "5"
    for name in ("requests", "tokens"):
        assert int(headers[f"x-ratelimit-remaining-{name}"]) < int(headers[f"x-ratelimit-limit-{name}"])
        assert headers[f"x-ratelimit-reset-{name}"][-1] == "s"
    for name in ("req", "tokens"):
        assert int(headers[f"x-ratelimit-remaining-{name}-minute"]) <= int(headers[f"x-ratelimit-limit-{name}-minute"])


async def test_the_asynchronous_client_gets_answers_and_streams(server: Server, key: Key) -> None:
    async with AsyncOpenAI(base_url=f"{server.address}/v1", api_key=key.secret, max_retries=0) as client:
        answer = await client.chat.completions.create(model="brise", messages=HELLO, max_tokens=4)
        assert answer.choices[0].message.role == "assistant"
        stream = await client.chat.completions.create(model="brise", messages=HELLO, max_tokens=4, stream=True)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason in {"stop", "length"}


def test_the_openai_mount_serves_the_same(server: Server, key: Key) -> None:
    with OpenAI(base_url=f"{server.address}/openai/v1", api_key=key.secret, max_retries=0) as client:
        assert ask(client).id.startswith("chatcmpl-")
