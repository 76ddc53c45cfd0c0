"""Turns an engine's embeddings into the size, number type and encoding that the caller asked for; pure.

Sizes: the first components, brought back to length 1, which is what models trained for it (Matryoshka, arXiv
2205.13147) expect. Types: int8 and uint8 map [-1, 1] onto their range, binary and ubinary keep the signs, eight a byte,
binary offset by -128.
"""

import base64
from typing import Any, cast

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from galerne.gateway.admission import Admitted
from galerne.gateway.tally import Tally
from galerne.gateway.wire.chunks import Usage
from galerne.gateway.wire.requests import invalid_field
from galerne.gateway.wire.shapes import EmbeddingBody
from galerne.kernel import UpstreamFailed

__all__ = ["embedding_answer", "quantised", "shortened"]

Vector = NDArray[Any]


class _Row(Struct):
    embedding: list[float]
    index: int = 0


class _Answer(Struct):
    data: list[_Row]
    usage: Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def embedding_answer(admitted: Admitted, raw: bytes, tally: Tally) -> bytes:
    """The body of the answer, from the engine's; its tokens are counted in `tally`. `UpstreamFailed` for none."""
    body = cast(EmbeddingBody, admitted.body)
    try:
        answer = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamFailed("The engine sent something that is no answer.", code="upstream_garbage") from error
    tally.count_input(answer.usage.prompt_tokens if answer.usage else None)
    rows = sorted(answer.data, key=lambda row: row.index)
    if len(rows) != _inputs(body) or any(not row.embedding for row in rows):
        raise UpstreamFailed("The engine did not answer for every input.", code="upstream_garbage")
    shown = [
        {"object": "embedding", "index": index, "embedding": _shown(row.embedding, body)}
        for index, row in enumerate(rows)
    ]
    return msgspec.json.encode(
        {
            "id": f"embd-{admitted.face.request_id}" if admitted.face.dialect == "openai" else admitted.face.request_id,
            "object": "list",
            "data": shown,
            "model": admitted.face.model,
            "usage": tally.count().usage(admitted.face.dialect, admitted.face.tier),
        }
    )


def shortened(vector: Vector, size: int | None) -> Vector:
    """The first `size` components at length 1; `vector` itself when it has no more than that."""
    if size is None or size >= len(vector):
        return vector
    cut = vector[:size]
    length = float(np.linalg.norm(cut))
    return cut / length if length > 0 else cut


def quantised(vector: Vector, dtype: str) -> Vector:
    """`vector` as numbers of `dtype`; binary ones hold eight signs a byte, the first in the highest bit."""
    if dtype == "int8":
        return np.clip(np.rint(vector * 127), -128, 127).astype(np.int8)
    if dtype == "uint8":
        return np.clip(np.rint((vector + 1) * 127.5), 0, 255).astype(np.uint8)
    if dtype in ("binary", "ubinary"):
        packed = np.packbits(vector > 0)
        return packed if dtype == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    return vector.astype(np.float32)


def _shown(given: list[float], body: EmbeddingBody) -> Any:
    size = body.output_dimension or body.dimensions
    name = "output_dimension" if body.output_dimension else "dimensions"
    if size is not None and size > len(given):
        raise invalid_field(name, f"this model's embeddings have {len(given)} dimensions", "less_than_equal")
    dtype = body.output_dtype or "float"
    if dtype == "float" and body.encoding_format != "base64" and size in (None, len(given)):
        return given  # as the engine wrote it, to the last digit
    numbers = quantised(shortened(np.asarray(given, dtype=np.float32), size), dtype)
    if body.encoding_format == "base64":
        return base64.b64encode(numbers.tobytes()).decode()
    return numbers.tolist()


def _inputs(body: EmbeddingBody) -> int:
    if isinstance(body.input, str) or (body.input and type(body.input[0]) is int):
        return 1
    return len(body.input)
