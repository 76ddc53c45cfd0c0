import httpx2
import pytest
from mistralai.client import Mistral

from tests.compat.functions import VERDICT_SCHEMA, check_verdict
from tests.serving import Key, Server

HELLO = [{"role": "user", "content": "Tell me about the sea."}]


def ask(client: Mistral, **options):
    return client.chat.complete(**{"model": "brise", "messages": HELLO, "max_tokens": 12, **options})


def stream(client: Mistral, **options):
    with client.chat.stream(**{"model": "brise", "messages": HELLO, "max_tokens": 12, **options}) as events:
        return [event.data for event in events]


def text_of(client: Mistral, *, streamed: bool = False, **options) -> str:
    if streamed:
        return "".join(c.delta.content or "" for chunk in stream(client, **options) for c in chunk.choices)
    return str(ask(client, **options).choices[0].message.content)


def test_an_answer_has_id_model_choice_and_usage(mistral: Mistral) -> None:
    answer = ask(mistral)
    assert answer.id.isalnum(), "Mistral's ids are bare"
    assert answer.object == "chat.completion"
    assert answer.model == "brise"
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert isinstance(choice.message.content, str)
    assert choice.finish_reason in {"stop", "length"}
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says_and_carries_usage_unasked(mistral: Mistral) -> None:
    chunks = stream(mistral, temperature=0)
    assert "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices) == text_of(mistral, temperature=0)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_capped_answer_ends_with_length(mistral: Mistral, streamed: bool) -> None:
    options = {"max_tokens": 3, "min_tokens": 3}
    last = stream(mistral, **options)[-1] if streamed else ask(mistral, **options)
    assert last.choices[0].finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_string_ends_the_answer_before_itself(mistral: Mistral, streamed: bool) -> None:
    whole = text_of(mistral, temperature=0, max_tokens=24, min_tokens=24)
    stop = whole[6:8]
    assert text_of(mistral, streamed=streamed, temperature=0, max_tokens=24, stop=stop) == whole[: whole.index(stop)]


def test_a_random_seed_repeats_the_text_and_another_does_not(mistral: Mistral) -> None:
    first = text_of(mistral, random_seed=11, temperature=1, max_tokens=16)
    assert text_of(mistral, random_seed=11, temperature=1, max_tokens=16) == first
    assert text_of(mistral, random_seed=12, temperature=1, max_tokens=16) != first


def test_both_dialects_give_the_same_text_for_the_same_seed(mistral: Mistral, openai) -> None:
    theirs = openai.chat.completions.create(model="brise", messages=HELLO, max_tokens=12, temperature=1, seed=4)
    assert text_of(mistral, random_seed=4, temperature=1) == theirs.choices[0].message.content


@pytest.mark.parametrize("streamed", [False, True])
def test_two_choices_come_with_their_indices(mistral: Mistral, streamed: bool) -> None:
    options = {"n": 2, "temperature": 1}
    if streamed:
        ended = {c.index for chunk in stream(mistral, **options) for c in chunk.choices if c.finish_reason}
        assert ended == {0, 1}
    else:
        assert [choice.index for choice in ask(mistral, **options).choices] == [0, 1]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_goes_on_from_the_prefix(mistral: Mistral, streamed: bool) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "The sea is", "prefix": True}]
    text = text_of(mistral, streamed=streamed, messages=messages, temperature=0)
    assert text.startswith("The sea is")
    assert len(text) > len("The sea is")


def test_safe_prompt_adds_a_system_prompt(mistral: Mistral) -> None:
    plain, safe = ask(mistral, max_tokens=2), ask(mistral, max_tokens=2, safe_prompt=True)
    assert safe.usage.prompt_tokens > plain.usage.prompt_tokens + 10


@pytest.mark.parametrize("streamed", [False, True])
def test_a_json_schema_is_kept_to(mistral: Mistral, streamed: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": VERDICT_SCHEMA, "strict": True}}
    check_verdict(text_of(mistral, streamed=streamed, response_format=form, max_tokens=200, temperature=1))


def test_json_object_mode_begins_an_object(mistral: Mistral) -> None:
    assert text_of(mistral, response_format={"type": "json_object"}, max_tokens=40).startswith("{")


def test_log_probabilities_are_given(mistral: Mistral) -> None:
    choice = ask(mistral, logprobs=True, top_logprobs=2, temperature=0, max_tokens=4).choices[0]
    content = choice.model_dump()["logprobs"]["content"]
    assert 1 <= len(content) <= 4
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 2 for token in content)


def test_options_of_the_specification_are_taken(mistral: Mistral) -> None:
    answer = ask(
        mistral,
        temperature=0.7,
        top_p=0.9,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        metadata={"purpose": "test"},
        prediction={"type": "content", "content": "The sea"},
        parallel_tool_calls=True,
        prompt_cache_key="k",
        service_tier="auto",
        top_k=20,
        repetition_penalty=1.1,
    )
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_a_conversation_with_all_roles_and_chunks_is_understood(mistral: Mistral) -> None:
    call = {"id": "abcDEF123", "function": {"name": "get_time", "arguments": {"zone": "UTC"}}}
    answer = ask(
        mistral,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What time is it?"}]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "get_time", "tool_call_id": "abcDEF123", "content": "12:30"},
            {"role": "assistant", "content": "It is half past twelve."},
            {"role": "user", "content": "Thank you."},
        ],
    )
    assert isinstance(answer.choices[0].message.content, str)


def test_the_usage_row_says_mistral(mistral: Mistral, server: Server, key: Key) -> None:
    answer = ask(mistral, max_tokens=2)
    row = next(row for row in server.usage(key) if row["id"] == answer.id)
    assert row["dialect"] == "mistral"
    assert row["output_tokens"] == answer.usage.completion_tokens


def test_the_correlation_id_is_on_every_answer(server: Server) -> None:
    key = server.new_key(requests_per_minute=6)  # a limit that refills slowly enough to see
    seen: list[httpx2.Response] = []
    with httpx2.Client(event_hooks={"response": [seen.append]}) as client:
        ask(Mistral(server_url=server.address, api_key=key.secret, client=client), max_tokens=2)
    headers = seen[0].headers
    assert headers["mistral-correlation-id"] == headers["x-request-id"]
    assert headers["x-ratelimit-remaining-req-minute"] == "5"
    assert int(headers["x-ratelimit-tokens-query-cost"]) > 0


async def test_the_asynchronous_methods_get_answers_and_streams(server: Server, key: Key) -> None:
    async with Mistral(server_url=server.address, api_key=key.secret) as client:
        answer = await client.chat.complete_async(model="brise", messages=HELLO, max_tokens=4)
        assert answer.choices[0].message.role == "assistant"
        async with await client.chat.stream_async(model="brise", messages=HELLO, max_tokens=4) as events:
            chunks = [event.data async for event in events]
        assert chunks[-1].usage is not None


def test_the_mistral_mount_speaks_mistral_to_anyone(server: Server, key: Key) -> None:
    body = {"model": "brise", "messages": HELLO, "max_tokens": 2}
    answer = server.call("POST", "/mistral/v1/chat/completions", body, key.secret)
    assert answer.json["id"].isalnum()
