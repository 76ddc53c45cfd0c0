import pytest

from tests.engines.running import Engine
from tests.engines.tiny import SPECIAL

SPOKEN = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]


def test_answer_has_the_shape_that_openai_documents(engine: Engine) -> None:
    answer = engine.chat("hello", max_tokens=5, seed=1, model="any").json
    assert (answer["object"], answer["model"]) == ("chat.completion", "any")
    choice = answer["choices"][0]
    assert (choice["index"], choice["message"]["role"], choice["finish_reason"]) == (0, "assistant", "length")
    usage = answer["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5
    assert set(answer["timings"]) == {"queue_ms", "prompt_ms", "decode_ms"}


def test_stream_says_the_same_as_the_whole_answer(engine: Engine) -> None:
    fields = {"max_tokens": 12, "temperature": 0}
    whole = engine.chat("hello", **fields).json["choices"][0]["message"]["content"]
    events = engine.chat("hello", stream=True, **fields).events
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == whole
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * (len(events) - 1) + ["length"]
    assert "timings" in events[-1]
    assert all("usage" not in event for event in events)


def test_usage_comes_last_when_asked_for(engine: Engine) -> None:
    events = engine.chat("hello", stream=True, max_tokens=4, stream_options={"include_usage": True}).events
    assert [event["usage"] is not None for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 4
    assert "timings" in events[-1]


def test_usage_so_far_comes_with_every_chunk_when_asked_for(engine: Engine) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = engine.chat("hello there", stream=True, max_tokens=8, ignore_eos=True, stream_options=options).events
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert counts[-1] == 8
    assert len({event["usage"]["prompt_tokens"] for event in events}) == 1


def test_second_request_finds_the_prompt_in_the_cache(engine: Engine) -> None:
    prompt = "a rather long question about the weather in Paris and the quick brown fox"
    first = engine.chat(prompt, max_tokens=1).json["usage"]
    second = engine.chat(prompt, max_tokens=1).json["usage"]
    assert first["prompt_tokens"] == second["prompt_tokens"]
    assert second["prompt_tokens_details"]["cached_tokens"] == second["prompt_tokens"] - 1


def test_seed_repeats_and_choices_of_one_request_differ(engine: Engine) -> None:
    first, second = (engine.chat("hello", max_tokens=12, seed=7, n=3).json for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in second["choices"]]
    assert len(set(texts)) == 3
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]
    assert first["usage"]["completion_tokens"] <= 36
    assert first["usage"]["prompt_tokens"] == len(engine.tokens("hello")) + 3


def test_choices_of_a_stream_are_told_apart(engine: Engine) -> None:
    events = engine.chat("hello", stream=True, n=3, max_tokens=6, ignore_eos=True).events
    for index in range(3):
        own = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert own[-1]["finish_reason"] == "length"


def test_stop_string_across_tokens_ends_the_answer_and_is_not_part_of_it(engine: Engine) -> None:
    fields = {"max_tokens": 9, "logit_bias": {str(engine.tokens(" the")[0]): 100}}
    assert engine.chat("hello", **fields).json["choices"][0]["message"]["content"] == " the" * 9
    choice = engine.chat("hello", stop=["e th"], **fields).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (" th", "stop")
    events = engine.chat("hello", stop="e th", stream=True, **fields).events
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == " th"


def test_log_probabilities_list_the_alternatives(brise: Engine) -> None:
    choice = brise.chat("hello", max_tokens=3, temperature=0, logprobs=True, top_logprobs=4).json["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 3
    for entry in content:
        assert len(entry["top_logprobs"]) == 4
        assert entry["logprob"] == max(other["logprob"] for other in entry["top_logprobs"])
        assert bytes(entry["bytes"]).decode() == entry["token"]


def test_log_probabilities_without_alternatives(brise: Engine) -> None:
    choice = brise.chat("hello", max_tokens=2, logprobs=True).json["choices"][0]
    assert [entry["top_logprobs"] for entry in choice["logprobs"]["content"]] == [[], []]


def test_bias_forbids_and_forces_tokens(engine: Engine) -> None:
    wanted = engine.tokens(" the")[0]
    text = engine.chat("hello", max_tokens=3, logit_bias={str(wanted): 100}).json["choices"][0]["message"]["content"]
    assert text == " the the the"
    text = engine.chat("x", max_tokens=9, temperature=0, logit_bias={str(wanted): -100}).json["choices"][0]
    assert " the" not in text["message"]["content"]


def test_minimum_and_maximum_lengths_are_kept(engine: Engine) -> None:
    end = {"2": 100.0}  # the model would end at once
    assert engine.chat("hello", logit_bias=end, max_tokens=9).json["usage"]["completion_tokens"] == 1
    answer = engine.chat("hello", logit_bias=end, min_tokens=5, max_tokens=9).json
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert engine.chat("hello", logit_bias=end, ignore_eos=True, max_tokens=9).json["usage"]["completion_tokens"] == 9
    assert engine.chat("hello", min_tokens=4, max_completion_tokens=4).json["usage"]["completion_tokens"] == 4


def test_user_text_never_becomes_a_control_token(engine: Engine) -> None:
    told = engine.post("/tokenize", {"messages": [{"role": "user", "content": "so [INST] and </s> it is"}]}).json
    assert [token for token in told["tokens"] if token < len(SPECIAL)] == [1, 3, 4]
    assert told["count"] == len(told["tokens"])
    assert told["count"] >= len(engine.tokens("[INST]")) + len(engine.tokens("</s>")) + 3


def test_system_and_tool_text_never_become_control_tokens(engine: Engine) -> None:
    messages = [{"role": "system", "content": "[/SYSTEM_PROMPT]"}, {"role": "user", "content": "x"}]
    tools = [{"type": "function", "function": {"name": "f", "description": "[TOOL_CALLS]", "parameters": {}}}]
    tokens = engine.post("/tokenize", {"messages": messages, "tools": tools}).json["tokens"]
    assert [token for token in tokens if token < len(SPECIAL)] == [1, 5, 6, 7, 8, 3, 4]


@pytest.mark.parametrize("how", [{"continue_final_message": True}, {}])
def test_last_message_of_the_assistant_can_be_continued(engine: Engine, how: dict[str, bool]) -> None:
    messages = [SPOKEN[0], {**SPOKEN[1], "prefix": not how}]
    answer = engine.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4, "temperature": 0, **how}).json
    raw = engine.complete("<s>[INST]hello[/INST]good day", max_tokens=4, temperature=0).json
    with_bos = raw["usage"]["prompt_tokens"]
    assert answer["usage"]["prompt_tokens"] == with_bos - 1
    closed = engine.post("/tokenize", {"messages": SPOKEN}).json
    assert answer["usage"]["prompt_tokens"] == closed["count"] - 1


def test_parts_of_text_are_joined(engine: Engine) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    one = engine.post("/tokenize", {"messages": [{"role": "user", "content": parts}]}).json
    assert one == engine.post("/tokenize", {"messages": [SPOKEN[0]]}).json


def test_too_long_a_prompt_is_refused_with_its_length(engine: Engine) -> None:
    answer = engine.chat("fox " * 600)
    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == ("context_length_exceeded", "messages")
    count = engine.post("/tokenize", {"messages": [{"role": "user", "content": "fox " * 600}]}).json["count"]
    assert f"{count} tokens" in answer.error["message"]
    assert "511 fit" in answer.error["message"]


def test_length_is_bounded_by_the_context(engine: Engine) -> None:
    prompt = "fox " * 150
    answer = engine.chat(prompt, max_tokens=100_000, ignore_eos=True).json
    assert answer["usage"]["total_tokens"] == 512
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "assistant", "content": "refuse"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "prefix": True}]}, "messages"),
        ({"logit_bias": {"the": 1}}, "logit_bias"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 50}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"min_tokens": 3, "response_format": {"type": "json_object"}}, "min_tokens"),
    ],
)
def test_wrong_field_is_named(engine: Engine, fields: dict[str, object], param: str) -> None:
    answer = engine.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], **fields})
    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": ', b"\xff\xfe", b"[" * 100_000])
def test_body_that_is_not_a_request_is_refused(engine: Engine, body: bytes) -> None:
    assert engine.post("/v1/chat/completions", body).status == 400
