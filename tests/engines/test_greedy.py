from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engines.running import Engine, running
from tests.engines.tiny import LLAMA_3, TEKKEN, write_model

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a little girl who",
    "def add(a, b):\n",
    "In 1789, the people of Paris",
    "Élégance et naïveté:",
)
TEXTS = (
    "Plain English, with punctuation: it's they'd we'll I'M -- (really?) [yes] {no}.",
    "Numbers 1 12 123 1234 12345678 3.14159 1e-9 and\tTabs\n\n\nNewlines   spaces \n x",
    "Élégance, naïveté, Straße, Łódź, İstanbul; 東京は晴れ, мир и война, שלום עולם, नमस्ते 🙂👩‍👩‍👧 ﬁ",
    "x = {'a': [1, 2], \"b\": None}  # comment\r\nif x:\r\n    return -x ** 2",
)


@pytest.mark.timeout(60, func_only=True)  # loads transformers, and generates 320 tokens with it
def test_greedy_output_equals_that_of_transformers(brise: Engine, brise_model: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(brise_model)
    model = AutoModelForCausalLM.from_pretrained(brise_model, dtype=torch.float32)
    torch.set_num_threads(1)  # several would wait for each other on cores that are busy
    for text in PROMPTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            made = model.generate(
                ids, max_new_tokens=64, min_new_tokens=64, do_sample=False, repetition_penalty=1.0, pad_token_id=0
            )
        fields = {"max_tokens": 64, "ignore_eos": True, "temperature": 0, "repetition_penalty": 1.0}
        answer = brise.complete(ids[0].tolist(), **fields).json
        assert answer["choices"][0]["text"] == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.timeout(60, func_only=True)  # loads transformers
def test_tokens_equal_those_of_transformers(brise: Engine, brise_model: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(brise_model)
    for text in (*PROMPTS, *TEXTS):
        assert brise.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("pattern", [LLAMA_3, TEKKEN, None], ids=["llama-3", "tekken", "gpt-2"])
def test_every_known_pre_tokenizer_is_reproduced(tmp_path: Path, pattern: str | None) -> None:
    model = write_model(tmp_path / "model", pattern)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    with running(model, tmp_path) as engine:
        for text in (*PROMPTS, *TEXTS):
            assert engine.tokens(text) == tokenizer.encode(text).ids, text


@pytest.mark.timeout(60, func_only=True)  # loads transformers
def test_chat_prompt_equals_that_of_transformers(brise: Engine, brise_model: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(brise_model)
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "description": "Wétter", "parameters": parameters}}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Wie ist das Wetter in Köln?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
            ],
        },
        {"role": "tool", "content": '{"sky": "blue"}', "tool_call_id": "a"},
    ]
    expected = tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
    assert brise.post("/tokenize", {"messages": messages, "tools": tools}).json["tokens"] == expected
