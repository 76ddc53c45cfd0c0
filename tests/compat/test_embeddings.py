import base64

import numpy as np
import pytest
from mistralai.client import Mistral
from openai import BadRequestError, OpenAI

from tests.serving import Key, Server

WIDTH = 384
TEXTS = ["The cat sleeps on the sofa.", "A kitten is resting on the couch.", "Interest rates rose in March."]


def vectors(client: OpenAI, **options) -> np.ndarray:
    answer = client.embeddings.create(**{"model": "minilm", "input": TEXTS, **options})
    return np.array([row.embedding for row in answer.data])


def test_texts_of_like_meaning_are_near_each_other(openai: OpenAI) -> None:
    found = vectors(openai)
    assert found.shape == (3, WIDTH)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-3)
    near, far = found[0] @ found[1], found[0] @ found[2]
    assert near > 0.5 > 0.3 > far


def test_float_and_base64_are_the_same_numbers(openai: OpenAI) -> None:
    # The client asks for base64 by itself and decodes it; float is what it asks for only when told.
    assert vectors(openai) == pytest.approx(vectors(openai, encoding_format="float"), abs=1e-6)


def test_one_text_gets_one_row_and_usage_counts_input_only(openai: OpenAI) -> None:
    answer = openai.embeddings.create(model="minilm", input="hello")
    assert [row.index for row in answer.data] == [0]
    assert answer.object == "list"
    assert answer.model == "minilm"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_token_ids_are_taken(openai: OpenAI) -> None:
    assert vectors(openai, input=[7592, 2088]).shape == (1, WIDTH)
    assert vectors(openai, input=[[7592], [2088]]).shape == (2, WIDTH)


def test_fewer_dimensions_are_the_first_ones_at_length_one(openai: OpenAI) -> None:
    whole, cut = vectors(openai), vectors(openai, dimensions=64)
    assert cut.shape == (3, 64)
    expected = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    assert cut == pytest.approx(expected, abs=1e-5)


def test_more_dimensions_than_there_are_is_refused(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        vectors(openai, dimensions=100_000)
    assert refused.value.param == "dimensions"


def test_mistrals_client_gets_the_same_vectors(openai: OpenAI, mistral: Mistral) -> None:
    answer = mistral.embeddings.create(model="minilm", inputs=TEXTS)
    assert np.array([row.embedding for row in answer.data]) == pytest.approx(vectors(openai), abs=1e-6)
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    ("dtype", "low", "high", "length"),
    [("int8", -128, 127, 64), ("uint8", 0, 255, 64), ("binary", -128, 127, 8), ("ubinary", 0, 255, 8)],
)
def test_mistrals_number_types(mistral: Mistral, dtype: str, low: int, high: int, length: int) -> None:
    answer = mistral.embeddings.create(model="minilm", inputs=TEXTS[:1], output_dimension=64, output_dtype=dtype)
    vector = answer.data[0].embedding or []
    assert len(vector) == length
    assert all(value == int(value) and low <= value <= high for value in vector)


def test_base64_of_bytes_is_their_raw_form(server: Server, key: Key, mistral: Mistral) -> None:
    plain = mistral.embeddings.create(model="minilm", inputs=TEXTS[:1], output_dtype="ubinary").data[0].embedding or []
    # Mistral's client sends encoding_format, but its own type for the answer takes numbers alone.
    body = {"model": "minilm", "input": TEXTS[:1], "output_dtype": "ubinary", "encoding_format": "base64"}
    encoded = server.call("POST", "/v1/embeddings", body, key.secret).json["data"][0]["embedding"]
    assert list(base64.b64decode(encoded)) == [int(value) for value in plain]


def test_a_chat_model_makes_no_embeddings_and_the_other_way_round(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.embeddings.create(model="brise", input="hello")
    assert refused.value.param == "model"
    with pytest.raises(BadRequestError):
        openai.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "hello"}])
