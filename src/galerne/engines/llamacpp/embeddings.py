"""Knows how to answer POST /v1/embeddings."""

import base64
from typing import Any

import msgspec
import numpy as np

from galerne.engines.llamacpp.native import Vectors
from galerne.engines.llamacpp.replies import encode
from galerne.engines.llamacpp.requests import EmbeddingRequest, token_lists
from galerne.engines.llamacpp.runtime import Runtime
from galerne.kernel.errors import BadRequest

_MOST_INPUTS = 2048
_PER_CALL = 32  # so that a long list does not hold up a short one


class _Row(msgspec.Struct):
    object: str
    index: int
    embedding: list[float] | str


async def embed(runtime: Runtime, request: EmbeddingRequest) -> bytes:
    """The answer as JSON: one L2-normalised vector for each input.

    Raises `BadRequest` for an input that is empty or has more tokens than the model reads: OpenAI's rule, which rather
    refuses than embeds a part of a text as if it were the whole.
    """
    inputs = await _tokens(runtime, request)
    batches = [inputs[start : start + _PER_CALL] for start in range(0, len(inputs), _PER_CALL)]
    vectors = np.concatenate([await runtime.client.embed(batch) for batch in batches])
    vectors = shortened(vectors, request.dimensions)
    count = sum(map(len, inputs))
    runtime.measures.prompt_tokens.inc(count)
    rows = [_Row("embedding", index, _written(vector, request)) for index, vector in enumerate(vectors)]
    reply: dict[str, Any] = {
        "object": "list",
        "data": rows,
        "model": request.model or runtime.name,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    return encode(reply)


def shortened(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` components of each row, normalised anew; raises `BadRequest` when there are fewer."""
    width = vectors.shape[1]
    if dimensions is None or dimensions == width:
        return vectors
    if dimensions > width:
        raise BadRequest(f"dimensions is {dimensions}; this model's vectors have {width}", param="dimensions")
    cut = vectors[:, :dimensions]
    return (cut / np.linalg.norm(cut, axis=1, keepdims=True)).astype(np.float32)


async def _tokens(runtime: Runtime, request: EmbeddingRequest) -> list[list[int]]:
    given = token_lists(request.input, "input")
    if len(given) > _MOST_INPUTS:
        raise BadRequest(f"at most {_MOST_INPUTS} inputs are allowed, {len(given)} were given", param="input")
    inputs: list[list[int]] = []
    for index, item in enumerate(given):
        param = f"input[{index}]" if isinstance(request.input, list) and len(given) > 1 else "input"
        if not item:
            raise BadRequest(f"{param} is empty", param=param)
        tokens = await runtime.client.tokenize(item, control=False, add_special=True) if isinstance(item, str) else item
        if len(tokens) > runtime.context:
            raise BadRequest(
                f"{param} has {len(tokens)} tokens; at most {runtime.context} fit",
                param=param,
                code="context_length_exceeded",
            )
        inputs.append(tokens)
    return inputs


def _written(vector: Vectors, request: EmbeddingRequest) -> list[float] | str:
    if request.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
