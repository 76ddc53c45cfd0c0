import pytest

from tests.engines.running import Engine

GREEDY = {"temperature": 0, "max_tokens": 6, "ignore_eos": True}


def test_text_and_its_tokens_are_the_same_prompt(engine: Engine) -> None:
    tokens = [1, *engine.tokens("the quick brown")]
    text = engine.complete("the quick brown", **GREEDY).json
    assert text["usage"]["prompt_tokens"] == len(tokens)
    assert text["object"] == "text_completion"
    assert engine.complete(tokens, **GREEDY).json["choices"] == text["choices"]


def test_several_prompts_give_choices_in_order(engine: Engine) -> None:
    alone = [engine.complete(prompt, **GREEDY).json["choices"][0]["text"] for prompt in ("the", "fox")]
    together = engine.complete(["the", "fox"], n=2, **GREEDY).json
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in together["choices"]] == [alone[0], alone[0], alone[1], alone[1]]
    lists = engine.complete([[1, *engine.tokens("the")], [1, *engine.tokens("fox")]], **GREEDY).json
    assert [choice["text"] for choice in lists["choices"]] == alone


def test_echo_begins_with_the_prompt(engine: Engine) -> None:
    plain = engine.complete("the quick", **GREEDY).json["choices"][0]["text"]
    assert engine.complete("the quick", echo=True, **GREEDY).json["choices"][0]["text"] == "the quick" + plain
    events = engine.complete("the quick", echo=True, stream=True, **GREEDY).events
    assert "".join(event["choices"][0]["text"] for event in events) == "the quick" + plain


def test_nothing_is_generated_for_no_tokens(engine: Engine) -> None:
    answer = engine.complete("the quick", max_tokens=0, echo=True).json
    assert (answer["choices"][0]["text"], answer["usage"]["completion_tokens"]) == ("the quick", 0)


def test_log_probabilities_have_the_completions_shape(brise: Engine) -> None:
    choice = brise.complete("the quick", logprobs=2, **GREEDY).json["choices"][0]
    told = choice["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(told["text_offset"])
    assert all(len(alternatives) == 2 for alternatives in told["top_logprobs"])
    assert "".join(told["tokens"]) == choice["text"]


def test_gap_is_filled_with_the_models_own_marks(engine: Engine) -> None:
    before, after = engine.tokens("def add("), engine.tokens("return left")
    filled = engine.complete("def add(", suffix="return left", **GREEDY).json
    laid_out = engine.complete([1, 13, *after, 12, *before], **GREEDY).json
    assert filled["usage"]["prompt_tokens"] == len(before) + len(after) + 3
    assert filled["choices"] == laid_out["choices"]


def test_control_tokens_in_code_to_fill_stay_text(engine: Engine) -> None:
    plain = len(engine.tokens("[SUFFIX]"))
    assert plain > 1
    filled = engine.complete("x", suffix="[SUFFIX]", **GREEDY).json
    assert filled["usage"]["prompt_tokens"] == plain + len(engine.tokens("x")) + 3


def test_completion_keeps_to_a_schema(engine: Engine) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    text = engine.complete("x", max_tokens=20, response_format=form).json["choices"][0]["text"]
    assert text in ('"yes"', '"no"')


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]"),
        ({"prompt": ["a"] * 300}, "prompt"),
        ({"prompt": "fox " * 900}, "prompt"),
        ({"prompt": ["a"], "suffix": "b"}, "prompt"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "logprobs"),
    ],
)
def test_wrong_field_is_named(engine: Engine, fields: dict[str, object], param: str) -> None:
    answer = engine.post("/v1/completions", fields)
    assert (answer.status, answer.error["param"]) == (400, param)
