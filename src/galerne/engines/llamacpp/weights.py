"""Knows the safetensors file format and sharded indexes; hands out arrays, knows nothing of what they mean."""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from galerne.engines.failures import UnusableModel

_LARGEST_HEADER = 100_000_000  # the limit that the format's reference implementation sets
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_CONVERTIBLE = ("F32", "F16", "BF16")

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor inside a file: where its bytes lie and how to read them."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> Floats:
        """The values as float32, in the stored shape; bfloat16 and float16 widen without loss.

        Raises `UnusableModel` for values of any other kind.
        """
        if self.dtype not in _CONVERTIBLE:
            raise UnusableModel(f"{self.file} stores {self.dtype} weights; only F32, F16 and BF16 can be converted")
        count = math.prod(self.shape)
        raw = np.memmap(self.file, dtype=np.uint8, mode="r", offset=self.offset, shape=(count * _WIDTHS[self.dtype],))
        if self.dtype == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view(np.float32 if self.dtype == "F32" else np.float16).astype(np.float32)
        return values.reshape(self.shape)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model folder: the one file, or the shards that its index names.

    Raises `UnusableModel` when there are none or when a shard is missing.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    if not index.is_file():
        raise UnusableModel(f"{folder} holds no model.safetensors and no .gguf file")
    try:
        weight_map = cast("dict[str, str]", json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableModel(f"{index} is not a safetensors index: {error}") from error
    files = tuple(folder / Path(name).name for name in sorted(set(weight_map.values())))
    for file in files:
        if not file.is_file():
            raise UnusableModel(f"{file} is named by {index.name} but is missing")
    return files


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the model in `folder` by name; raises `UnusableModel` for truncated or foreign files."""
    return {name: tensor for file in weight_files(folder) for name, tensor in _tensors_of(file)}


def _tensors_of(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _LARGEST_HEADER + 1
        if length > min(_LARGEST_HEADER, size - 8):
            raise UnusableModel(f"{file} is not a safetensors file, or its beginning is damaged")
        header_bytes = stream.read(length)
    try:
        header = cast("dict[str, Any]", json.loads(header_bytes))
        entries = [(name, _entry(file, 8 + length, size, entry)) for name, entry in header.items() if name[:2] != "__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableModel(f"{file} has a damaged safetensors header: {error}") from error
    yield from entries


def _entry(file: Path, base: int, size: int, entry: dict[str, Any]) -> StoredTensor:
    dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
    begin, end = (int(n) for n in entry["data_offsets"])
    if dtype not in _WIDTHS:
        raise UnusableModel(f"{file} stores values of the unknown kind {dtype}")
    if end - begin != math.prod(shape) * _WIDTHS[dtype]:
        raise UnusableModel(f"{file} has a damaged safetensors header: sizes and shapes disagree")
    if base + end > size:
        raise UnusableModel(f"{file} is truncated: {size} bytes, {base + end} expected")
    return StoredTensor(file, dtype, shape, base + begin)
