"""Whether a JSON Schema that a caller sent is one (draft 2020-12); engines differ in what they say otherwise."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import msgspec

from galerne.kernel import BadRequest

__all__ = ["SchemaChecker"]

_LARGEST = 128 * 1024  # checking takes time in proportion, up to a second or two


class SchemaChecker:
    """Checks schemas and remembers the good ones by hash, because an application sends the same few again and again.

    A new one is checked in a thread, one at a time, so that nobody waits for it but those who sent new ones.
    """

    def __init__(self, capacity: int = 1_000) -> None:
        self._capacity = capacity
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._turn = asyncio.Lock()

    async def check(self, schemas: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Raise `BadRequest` (400) naming the field of the first that is no JSON Schema."""
        for path, schema in schemas:
            encoded = msgspec.json.encode(schema)
            if len(encoded) > _LARGEST:
                raise BadRequest(f"{path}: larger than {_LARGEST} bytes.", param=path, code="invalid_schema")
            digest = hashlib.sha256(encoded).digest()
            if digest in self._good:
                self._good.move_to_end(digest)
                continue
            async with self._turn:
                await asyncio.to_thread(_check, path, schema)
            self._good[digest] = None
            while len(self._good) > self._capacity:
                self._good.popitem(last=False)


def _check(path: str, schema: dict[str, Any]) -> None:
    import_module("galerne.gateway.schema_drafts").check_schema(path, schema)  # 3 MB that most never need
