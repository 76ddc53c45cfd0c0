"""HTTP for what proves the journal: its signed checkpoint, its tree's tiles (C2SP tlog-tiles), proofs and public keys.

Hashes say nothing of what they are made from, so tiles are one for all; a leaf is shown to its own organisation alone.
"""

import base64
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.journal import (
    Proof,
    PublishedKey,
    consistency_proof,
    latest_checkpoint,
    list_keys,
    parse_path,
    prove_leaf,
    read_tile,
    tree_root,
)
from galerne.kernel import NotFound
from galerne.kernel.web import Position, Reading

router = APIRouter(prefix="/v1/journal", tags=["Journal"])

Reader = Annotated[Actor, requires(Permission.JOURNAL_READ)]

_FOR_EVER = {"cache-control": "private, max-age=31536000, immutable"}
_FOR_NOW = {"cache-control": "no-cache"}


class KeyOut(BaseModel):
    """A public key; `key` is the whole of it in one word, for `galerne verify --key` and other C2SP tools."""

    id: str
    key: str
    created_at: datetime
    retired_at: datetime | None


class KeyList(BaseModel):
    """Every key that ever signed, oldest first."""

    object: Literal["list"]
    data: list[KeyOut]


class ProofOut(BaseModel):
    """A leaf and what proves it: `hashes` in base64, from the leaf's sibling up; `proof` is all of it as a file."""

    object: Literal["inclusion_proof"]
    seq: int
    index: int
    leaf: str
    hashes: list[str]
    checkpoint: str
    proof: str


class ConsistencyOut(BaseModel):
    """What proves that the tree of `first` leaves is the beginning of that of `second`; hashes and roots in base64."""

    object: Literal["consistency_proof"]
    first: int
    second: int
    first_root: str
    second_root: str
    hashes: list[str]


@router.get("/checkpoint", response_class=PlainTextResponse)
async def read_checkpoint(actor: Reader, session: Reading) -> Response:
    """The newest signed checkpoint, a note of C2SP tlog-checkpoint. Keep it: it shows a later rewriting."""
    newest = await latest_checkpoint(session)
    if newest is None:
        raise NotFound("No checkpoint has been signed yet; the first comes within seconds.", code="not_yet_signed")
    return PlainTextResponse(newest.note, headers=_FOR_NOW)


@router.get("/keys")
async def read_keys(actor: Reader, session: Reading) -> KeyList:
    """The public keys that checkpoints are signed with. Note one down before you rely on it."""
    return KeyList(object="list", data=[KeyOut.model_validate(key_fields(each)) for each in await list_keys(session)])


@router.get("/tile/{level}/{rest:path}", response_class=Response)
async def read_one_tile(
    level: Annotated[int, Path(ge=0, le=63)], rest: str, actor: Reader, session: Reading
) -> Response:
    """A tile of the tree: up to 256 hashes of 32 bytes, at the address that C2SP tlog-tiles gives it."""
    part = parse_path(level, rest)
    hashes = None if part is None else await read_tile(session, part)
    if hashes is None:
        raise NotFound("There is no such tile.")
    return Response(hashes, media_type="application/octet-stream", headers=_FOR_EVER)


@router.get("/entries/{seq}/proof")
async def prove_entry(seq: Annotated[int, Path(ge=1, le=2**62)], actor: Reader, session: Reading) -> ProofOut:
    """Prove that an entry of this organisation is in the journal, under the oldest checkpoint that covers it."""
    proof = await prove_leaf(session, seq, actor.organisation_id, actor.workspace_id)
    return ProofOut.model_validate(proof_fields(proof))


@router.get("/consistency")
async def prove_consistency(first: Position, second: Position, actor: Reader, session: Reading) -> ConsistencyOut:
    """Prove that the journal of `first` entries is the beginning of that of `second`, none changed or removed."""
    hashes = await consistency_proof(session, first, second)
    return ConsistencyOut(
        object="consistency_proof",
        first=first,
        second=second,
        first_root=_encoded(await tree_root(session, first)),
        second_root=_encoded(await tree_root(session, second)),
        hashes=[_encoded(each) for each in hashes],
    )


def key_fields(published: PublishedKey) -> dict[str, object]:
    """A key as the API and the command line show it."""
    return {
        "id": published.key.id,
        "key": published.key.text,
        "created_at": published.created_at,
        "retired_at": published.retired_at,
    }


def proof_fields(proof: Proof) -> dict[str, object]:
    """A proof as the API and the command line show it."""
    return {
        "object": "inclusion_proof",
        "seq": proof.index + 1,
        "index": proof.index,
        "leaf": proof.leaf.decode(),
        "hashes": [_encoded(each) for each in proof.hashes],
        "checkpoint": proof.checkpoint,
        "proof": proof.text,
    }


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
