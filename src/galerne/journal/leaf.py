"""The journal's bytes: how an entry becomes a leaf, how leaves are hashed, and how hashes are chained.

Pure. A leaf says its version: the encoder of an old version is kept for ever, or old hashes would mean nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from galerne.kernel.clock import utc_text
from galerne.kernel.errors import BadRequest

Outcome = Literal["done", "refused", "failed"]

LOG = "galerne"
"""The name of the one log of an installation, part of each leaf."""

GENESIS = hashlib.sha256(b"galerne journal v1").digest()
"""The chain hash before the first leaf: SHA-256 of the ASCII text `galerne journal v1`."""

_LARGEST_INTEGER = 2**53 - 1  # RFC 8785 section 3.2.2.3: numbers are IEEE 754 doubles
_NOTHING: Mapping[str, str | int | bool | None] = MappingProxyType({})
# Its JSON is RFC 8785's for what a leaf may hold, strings and integers that a double can hold, if keys come in order.
_canonical = msgspec.json.Encoder().encode


class ActorLike(Protocol):
    """Whoever acts, as far as the journal needs to know; `governance.Actor` is one."""

    @property
    def kind(self) -> str:
        """What kind of thing acts, such as `api_key`."""
        ...

    @property
    def id(self) -> str:
        """Its id, unique among its kind."""
        ...

    @property
    def organisation_id(self) -> str:
        """The organisation that may read the leaf; empty for the installation itself."""
        ...

    @property
    def workspace_id(self) -> str | None:
        """The workspace it acts in, if it is bound to one."""
        ...


class Entry(Struct, frozen=True, kw_only=True):
    """Something that happened and is to be remembered: who did what to which thing, when, and how it ended.

    `at` is aware. `detail` holds few, small, flat values and never what users wrote. An entry that could not be written
    on every database raises `BadRequest` when it is made, not in the middle of a batch.
    """

    action: str
    actor: ActorLike
    resource: str
    outcome: Outcome
    at: datetime
    request_id: str | None = None
    detail: Mapping[str, str | int | bool | None] = _NOTHING

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("a time without a zone cannot be journalled")
        actor = self.actor
        texts = [self.action, self.resource, self.request_id or "", actor.id, actor.organisation_id, *self.detail]
        texts.append(actor.workspace_id or "")
        for value in self.detail.values():
            if type(value) is str:
                texts.append(value)
            elif type(value) is int and abs(value) > _LARGEST_INTEGER:
                raise BadRequest(
                    f"The number {value} is too large to be journalled; the largest is {_LARGEST_INTEGER}."
                )
        _check_text("".join(texts))


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends: the last leaf's `seq` (0 when empty; RFC 9162's tree size) and the chain hash there."""

    seq: int
    chain_hash: bytes


def encode(entry: Entry, seq: int) -> bytes:
    """The leaf of `entry` at `seq`: canonical JSON (RFC 8785), version 1."""
    actor = entry.actor
    return _canonical(
        {
            "action": entry.action,
            "actor": {
                "id": actor.id,
                "kind": str(actor.kind),
                "organisation_id": actor.organisation_id,
                "workspace_id": actor.workspace_id,
            },
            "detail": _sorted(entry.detail),
            "log": LOG,
            "outcome": entry.outcome,
            "request_id": entry.request_id,
            "resource": entry.resource,
            "seq": seq,
            "ts": timestamp(entry.at),
            "v": 1,
        }
    )


def _sorted(detail: Mapping[str, str | int | bool | None]) -> dict[str, str | int | bool | None]:
    if "".join(detail).isascii():
        return dict(sorted(detail.items()))
    return dict(sorted(detail.items(), key=lambda pair: pair[0].encode("utf-16-be")))  # RFC 8785 section 3.2.3


def timestamp(at: datetime) -> str:
    """`at` as RFC 3339 in UTC with microseconds, always of the same length."""
    return utc_text(at).replace(" ", "T") + "Z"


def extend(chain_hash: bytes, leaf_hash: bytes) -> bytes:
    """The chain hash after one more leaf: SHA-256(chain hash before || leaf hash)."""
    return hashlib.sha256(chain_hash + leaf_hash).digest()


def decode(leaf: bytes) -> dict[str, Any]:
    """The fields of a stored leaf."""
    fields: dict[str, Any] = json.loads(leaf)
    return fields


def _check_text(text: str) -> None:
    if "\x00" in text or not (text.isascii() or _encodable(text)):
        raise BadRequest("A name holds a NUL or half a surrogate pair; send it as valid Unicode without U+0000.")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
