"""Turns an engine's embeddings into the size, number type and encoding that the caller asked for; pure.

Sizes: the first components, brought back to length 1, which is what models trained for it (Matryoshka, arXiv
2205.13147) expect. Types: int8 and uint8 map [-1, 1] onto their range, binary and ubinary keep the signs, eight a byte,
binary offset by -128.
"""

import base64
import math
import sys
from array import array
from operator import mul
from typing import Any, cast

import msgspec
from msgspec import Struct

from galerne.gateway.admission import Admitted
from galerne.gateway.tally import Tally
from galerne.gateway.wire.answer import Fields
from galerne.gateway.wire.chunks import Usage
from galerne.gateway.wire.requests import invalid_field
from galerne.gateway.wire.shapes import EmbeddingBody
from galerne.kernel import UpstreamFailed

__all__ = ["embedding_answer", "quantised", "shortened"]

_LAST_BYTE = 0 if sys.byteorder == "little" else 3
_BYTES_OF_2_23 = [(at, byte) for at, byte in enumerate(array("f", [2.0**23]).tobytes()) if at != _LAST_BYTE]
_SIGN_BITS = bytes(byte ^ 0x80 for byte in range(256))


class _Row(Struct):
    embedding: list[float]
    index: int = 0


class _Answer(Struct):
    data: list[_Row]
    usage: Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode


def embedding_answer(admitted: Admitted, raw: bytes, tally: Tally) -> Fields:
    """The fields of the answer, from the engine's; its tokens are counted in `tally`. `UpstreamFailed` for none."""
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
    return {
        "id": f"embd-{admitted.face.request_id}" if admitted.face.dialect == "openai" else admitted.face.request_id,
        "object": "list",
        "data": shown,
        "model": admitted.face.model,
        "usage": tally.count().usage(admitted.face.dialect, admitted.face.tier),
    }


def shortened(vector: "array[float]", size: int | None) -> "array[float]":
    """The first `size` components at length 1; `vector` itself when it has no more than that."""
    if size is None or size >= len(vector):
        return vector
    cut = vector[:size]
    length = array("f", [math.sqrt(sum(map(mul, cut, cut)))])[0]
    return array("f", [each / length for each in cut]) if 0 < length < math.inf else cut


def quantised(vector: "array[float]", dtype: str) -> "array[float] | array[int]":
    """`vector` as numbers of `dtype`; binary ones hold eight signs a byte, the first in the highest bit."""
    if dtype == "int8":
        return array("b", _above(array("f", [*map((127.0).__mul__, vector)]), -128.0).translate(_SIGN_BITS))
    if dtype == "uint8":
        above_zero = array("f", [*map((1.0).__add__, vector)])
        return array("B", _above(array("f", [*map((127.5).__mul__, above_zero)]), 0.0))
    if dtype in ("binary", "ubinary"):
        packed = _signs(vector)
        return array("B", packed) if dtype == "ubinary" else array("b", packed.translate(_SIGN_BITS))
    return vector


def _above(numbers: "array[float]", least: float) -> bytes:
    """How far each number's nearest whole one, halves to the even, lies above `least`, from 0 to 255, a byte each.

    A fifth of the time that `round` takes: between 2**23 and 2**24 the floats of 32 bits are the whole numbers, so that
    adding 2**23 rounds, and the last byte is the result, if the others are those of 2**23.
    """
    raw = array("f", [*map((2.0**23 - least).__add__, numbers)]).tobytes()
    if any(raw[at::4].count(byte) != len(numbers) for at, byte in _BYTES_OF_2_23):
        return _above(array("f", [min(least + 255, max(least, each)) for each in numbers]), least)
    return raw[_LAST_BYTE::4]


def _signs(vector: "array[float]") -> bytes:
    digits = "".join(["1" if each > 0 else "0" for each in vector])
    size = -(-len(vector) // 8)
    return int(digits.ljust(size * 8, "0"), 2).to_bytes(size)


def _shown(given: list[float], body: EmbeddingBody) -> Any:
    size = body.output_dimension or body.dimensions
    name = "output_dimension" if body.output_dimension else "dimensions"
    if size is not None and size > len(given):
        raise invalid_field(name, f"this model's embeddings have {len(given)} dimensions", "less_than_equal")
    dtype = body.output_dtype or "float"
    if dtype == "float" and body.encoding_format != "base64" and size in (None, len(given)):
        return given  # as the engine wrote it, to the last digit
    numbers = quantised(shortened(array("f", given), size), dtype)
    if body.encoding_format == "base64":
        return base64.b64encode(numbers.tobytes()).decode()
    return numbers.tolist()


def _inputs(body: EmbeddingBody) -> int:
    if isinstance(body.input, str) or (body.input and type(body.input[0]) is int):
        return 1
    return len(body.input)
