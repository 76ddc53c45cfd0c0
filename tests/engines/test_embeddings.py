import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from tests.engines.running import Engine

SUBJECTS = (
    "The cat",
    "A naïve café owner",
    "Dr. O'Neil",
    "東京タワー",
    "Die Straßenbahn",
    "¡El niño!",
    "My e-mail (a@b.co)",
)
PREDICATES = (
    "sat on the mat.",
    "costs €3.50, i.e. 10% less...",
    "— she said — isn't coming; why?!",
    "visited Łódź, São Paulo & Zürich in 1999/2000",
    "says 你好 and мир",
    "runs `x += 1` #fast @home 🙂",
    "ﬁnds “quotes” … and\ttabs\nnewlines",
    "THINKS ABOUT BIG LETTERS",
)
SENTENCES = [
    *(f"{subject} {predicate}" for subject in SUBJECTS for predicate in PREDICATES),
    *(f"Sentence number {number} of a long row, {number * 37 % 101} words from home" for number in range(36)),
    *("word " * count for count in (2, 20, 100, 200)),
    *(character * 3 for character in "a?é中"),
]


def _vectors(engine: Engine, texts: list[str], **fields: object) -> NDArray[np.float32]:
    answer = engine.post("/v1/embeddings", {"input": texts, **fields}).json
    return np.array([row["embedding"] for row in answer["data"]], dtype=np.float32)


def _reference(tokenizer: Any, model: Any, texts: list[str]) -> NDArray[np.float32]:
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()


@pytest.mark.timeout(90, func_only=True)  # loads transformers
def test_vectors_equal_those_of_the_reference(minilm: Engine, minilm_model: Path) -> None:
    assert len(SENTENCES) == 100
    tokenizer, model = AutoTokenizer.from_pretrained(minilm_model), AutoModel.from_pretrained(minilm_model)
    torch.set_num_threads(1)  # several would wait for each other on cores that are busy
    expected = np.concatenate(
        [_reference(tokenizer, model, SENTENCES[start : start + 10]) for start in range(0, 100, 10)]
    )
    cosines = (_vectors(minilm, SENTENCES) * expected).sum(axis=1)
    worst = int(cosines.argmin())
    assert cosines[worst] >= 0.999, (SENTENCES[worst], cosines[worst])


def test_answer_has_the_shape_that_openai_documents(minilm: Engine) -> None:
    answer = minilm.post("/v1/embeddings", {"input": ["one", "two words"], "model": "minilm"}).json
    assert (answer["object"], answer["model"]) == ("list", "minilm")
    assert [(row["object"], row["index"], len(row["embedding"])) for row in answer["data"]] == [
        ("embedding", 0, 384),
        ("embedding", 1, 384),
    ]
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_vectors_have_length_one_and_meaning(minilm: Engine) -> None:
    king, queen, bread = _vectors(minilm, ["a king", "a queen", "a loaf of bread"])
    assert np.allclose([king @ king, queen @ queen, bread @ bread], 1.0, atol=1e-5)
    assert king @ queen > king @ bread


def test_tokens_give_the_same_vector_as_their_text(minilm: Engine) -> None:
    tokens = minilm.post("/tokenize", {"content": "hello world", "add_special": True}).json["tokens"]
    assert tokens == [101, 7592, 2088, 102]
    for given in (tokens, [tokens], [tokens, tokens]):
        vectors = minilm.post("/v1/embeddings", {"input": given}).json["data"]
        assert np.allclose(vectors[-1]["embedding"], _vectors(minilm, ["hello world"])[0], atol=1e-6)


def test_base64_holds_the_same_numbers(minilm: Engine) -> None:
    answer = minilm.post("/v1/embeddings", {"input": "hello", "encoding_format": "base64"}).json
    decoded = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), dtype="<f4")
    assert np.array_equal(decoded, _vectors(minilm, ["hello"])[0])


def test_fewer_dimensions_are_the_first_ones_made_unit_length(minilm: Engine) -> None:
    whole, cut = _vectors(minilm, ["hello"])[0], _vectors(minilm, ["hello"], dimensions=64)[0]
    assert cut.shape == (64,)
    assert np.allclose(cut, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)


def test_words_of_control_tokens_are_only_words(minilm: Engine) -> None:
    assert minilm.post("/tokenize", {"content": "[SEP]"}).json["tokens"] != [102]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_request"),
        ({"input": []}, "input", "invalid_request"),
        ({"input": ["a", ""]}, "input[1]", "invalid_request"),
        ({"input": "word " * 300}, "input", "context_length_exceeded"),
        ({"input": ["a", "word " * 300]}, "input[1]", "context_length_exceeded"),
        ({"input": "a", "dimensions": 385}, "dimensions", "invalid_request"),
        ({"input": "a", "dimensions": 0}, "dimensions", "invalid_request"),
        ({"input": "a", "encoding_format": "int3"}, "encoding_format", "invalid_request"),
        ({"input": ["a"] * 2049}, "input", "invalid_request"),
    ],
)
def test_wrong_input_is_named(minilm: Engine, fields: dict[str, object], param: str, code: str) -> None:
    answer = minilm.post("/v1/embeddings", fields)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code)


def test_embedding_model_does_not_chat(minilm: Engine) -> None:
    answer = minilm.chat("hello")
    assert answer.status == 404
    assert "only embeds text" in answer.error["message"]
