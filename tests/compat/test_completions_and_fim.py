import pytest
from mistralai.client import Mistral
from openai import OpenAI


def complete(client: OpenAI, **options):
    return client.completions.create(**{"model": "brise", "prompt": "Once upon a time", "max_tokens": 8, **options})


def test_a_completion_has_text_reason_and_usage(openai: OpenAI) -> None:
    answer = complete(openai)
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0


def test_a_streamed_completion_says_what_the_whole_one_says(openai: OpenAI) -> None:
    whole = complete(openai, temperature=0)
    chunks = list(complete(openai, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_several_prompts_get_an_answer_each(openai: OpenAI) -> None:
    answer = complete(openai, prompt=["The sun", "The moon"], max_tokens=2)
    assert [choice.index for choice in answer.choices] == [0, 1]


def test_a_prompt_may_be_token_ids(openai: OpenAI) -> None:
    answer = complete(openai, prompt=[1, 300, 301, 302], max_tokens=2)
    assert answer.usage is not None
    assert 4 <= answer.usage.prompt_tokens <= 5


def test_echo_repeats_the_prompt(openai: OpenAI) -> None:
    assert complete(openai, echo=True, max_tokens=2).choices[0].text.startswith("Once upon a time")


def test_log_probabilities_have_the_older_form(openai: OpenAI) -> None:
    found = complete(openai, logprobs=2, max_tokens=3, temperature=0).choices[0].logprobs
    assert found is not None
    assert found.tokens
    assert found.token_logprobs
    assert len(found.tokens) == len(found.token_logprobs)
    assert found.top_logprobs
    assert all(len(top) >= 2 for top in found.top_logprobs if top)


def test_a_completion_keeps_seed_stop_and_n(openai: OpenAI) -> None:
    first = complete(openai, seed=9, temperature=1).choices[0].text
    assert complete(openai, seed=9, temperature=1).choices[0].text == first
    assert len(complete(openai, n=2, temperature=1).choices) == 2
    whole = complete(openai, temperature=0, max_tokens=16, extra_body={"min_tokens": 16}).choices[0].text
    stopped = complete(openai, temperature=0, max_tokens=16, stop=whole[4:6]).choices[0]
    assert stopped.text == whole[: whole.index(whole[4:6])]
    assert stopped.finish_reason == "stop"


@pytest.mark.parametrize("suffix", [None, "    return result\n"])
def test_the_middle_is_filled_in(mistral: Mistral, suffix: str | None) -> None:
    options = {} if suffix is None else {"suffix": suffix}
    answer = mistral.fim.complete(model="brise", prompt="def add(a, b):\n", max_tokens=8, **options)
    assert isinstance(answer.choices[0].message.content, str)
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage.prompt_tokens > 0


def test_the_middle_is_filled_in_as_a_stream(mistral: Mistral) -> None:
    request = {"model": "brise", "prompt": "def add(a, b):\n", "suffix": "\nprint(add(1, 2))", "max_tokens": 8}
    whole = mistral.fim.complete(**request, temperature=0).choices[0].message.content
    with mistral.fim.stream(**request, temperature=0) as events:
        chunks = [event.data for event in events]
    assert "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks) == whole
    assert chunks[-1].usage is not None
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
