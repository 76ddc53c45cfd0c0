"""The leaves of an invoice's own tree: one for each line that a request counts on, in the order of requests. Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from galerne.journal.merkle import hash_leaf

CLASSES: Mapping[str, int] = MappingProxyType({"input": 0, "embeddings": 0, "cached": 1, "output": 2})
"""Which of the three counts of a request a token class is of, and the order of a request's leaves."""
OTHER = 9
"""The place of a class that requests do not have."""

_ENCODER = msgspec.json.Encoder(order="sorted")


class LineName(Struct, frozen=True, order=True, forbid_unknown_fields=True, gc=False):
    """On which line something counts; the same fields as rating's `LineKey`."""

    model_id: str
    token_class: str
    service_tier: str
    zone: str
    batch: bool
    rate_id: str
    tier_index: int

    @property
    def text(self) -> str:
        """It for people."""
        return ", ".join(str(getattr(self, name)) for name in self.__struct_fields__)

    @property
    def place(self) -> tuple[int, "LineName"]:
        """Where its leaf comes among those of a request."""
        return CLASSES.get(self.token_class, OTHER), self


class Amounts(NamedTuple):
    """How many units, and how many nano-units of the invoice's currency; negative where something is taken back."""

    quantity: int
    nano: int


class _Leaf(Struct, frozen=True, gc=False):
    event: str
    line: LineName
    nano: int
    quantity: int


def usage_leaf(event_id: str, line: LineName, quantity: int, nano: int) -> bytes:
    """What one request adds to one line, as the leaf that is hashed: canonical JSON (RFC 8785).

    An invoice's leaves are ordered by event id, then by `LineName.place`.
    """
    return _ENCODER.encode(_Leaf(event_id, line, nano, quantity))


def usage_leaf_hash(event_id: str, line: LineName, quantity: int, nano: int) -> bytes:
    """The hash of that leaf in an RFC 9162 tree."""
    return hash_leaf(usage_leaf(event_id, line, quantity, nano))


def canonical(value: Any) -> bytes:
    """A value of objects, lists, strings, integers, booleans and null as canonical JSON (RFC 8785).

    Object names are ASCII and integers stay within 2**53 where other readers shall agree.
    """
    return _ENCODER.encode(value)
