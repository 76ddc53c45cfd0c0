import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engines.running import Engine

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


@pytest.mark.timeout(60, func_only=True)  # loads transformers, and generates 400 tokens with it
def test_greedy_output_equals_that_of_transformers(brise: Engine, brise_model: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(brise_model)
    model = AutoModelForCausalLM.from_pretrained(brise_model, dtype=torch.float32)
    for text in PROMPTS:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            made = model.generate(
                ids, max_new_tokens=80, min_new_tokens=80, do_sample=False, repetition_penalty=1.0, pad_token_id=0
            )
        fields = {"max_tokens": 80, "ignore_eos": True, "temperature": 0, "repetition_penalty": 1.0}
        answer = brise.complete(ids[0].tolist(), **fields).json
        assert answer["choices"][0]["text"] == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.timeout(60, func_only=True)  # loads transformers
def test_tokens_equal_those_of_transformers(brise: Engine, brise_model: object) -> None:
    tokenizer = AutoTokenizer.from_pretrained(brise_model)
    for text in (*PROMPTS, *TEXTS):
        assert brise.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids


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
