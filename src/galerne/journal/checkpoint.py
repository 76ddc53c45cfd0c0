"""Checkpoints: what a log was at one size, as the text that its keys sign (C2SP tlog-checkpoint), and proofs that stand
on one (C2SP tlog-proof). Pure, and all that an offline verifier needs.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from galerne.journal.merkle import HASH_BYTES, ProofRefused, hash_leaf, verify_consistency, verify_inclusion
from galerne.journal.note import VerifierKey, open_note

_NUMBER = re.compile(r"0|[1-9]\d{0,18}")
_PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_LARGEST_PROOF = 1_000_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree of the log `origin` when it had `size` leaves: its `root`, 32 bytes."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed: three lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Proof:
    """A leaf and what shows that it is in a log: its index from 0, the inclusion proof, the signed checkpoint."""

    leaf: bytes
    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str

    @property
    def text(self) -> str:
        """The proof as a file of C2SP tlog-proof, with the leaf as its extra data."""
        head = [_PROOF_HEADER, f"extra {base64.b64encode(self.leaf).decode()}", f"index {self.index}"]
        hashes = [base64.b64encode(each).decode() for each in self.hashes]
        return "\n".join([*head, *hashes, "", self.checkpoint])


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that a note's text says; extension lines are allowed and passed over.

    Raises `ProofRefused` when it says none. Whether it may be believed only `verify_checkpoint` tells.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or _NUMBER.fullmatch(lines[1]) is None:
        raise ProofRefused("This is not a checkpoint: the log's name, its size and its root, each on a line.")
    return Checkpoint(lines[0], int(lines[1]), _hash(lines[2]))


def verify_checkpoint(note: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    """What the signed `note` says, once one of `keys` has been seen to sign it and to belong to that log.

    Raises `ProofRefused` naming what is wrong.
    """
    text, signed = open_note(note, keys)
    checkpoint = parse_checkpoint(text)
    if all(key.name != checkpoint.origin for key in signed):
        raise ProofRefused(f"The checkpoint is of the log {checkpoint.origin}, and the key that signed it of another.")
    return checkpoint


def verify_growth(old: Checkpoint, new: Checkpoint, hashes: Sequence[bytes]) -> None:
    """Return if `hashes` show that the log at `new` begins with all that it had at `old`, unchanged.

    Raises `ProofRefused` otherwise: then history was rewritten, or these are not checkpoints of one log.
    """
    if old.origin != new.origin:
        raise ProofRefused(f"The checkpoints are of two logs, {old.origin} and {new.origin}.")
    verify_consistency(old.size, new.size, old.root, new.root, hashes)


def parse_proof(text: str) -> Proof:
    """The proof in a tlog-proof file that carries its leaf; raises `ProofRefused` when it is none."""
    head, separator, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if len(text) > _LARGEST_PROOF or not separator or len(lines) < 3 or lines[0] != _PROOF_HEADER:
        raise ProofRefused(f"This is not a proof: its first line should be {_PROOF_HEADER}.")
    extra, index = lines[1].removeprefix("extra "), lines[2].removeprefix("index ")
    if extra == lines[1] or index == lines[2] or _NUMBER.fullmatch(index) is None:
        raise ProofRefused("The proof's second line should be `extra` with the leaf, its third `index` with a number.")
    return Proof(_decoded(extra), int(index), tuple(_hash(line) for line in lines[3:]), checkpoint)


def verify_proof(proof: Proof, keys: Sequence[VerifierKey]) -> Checkpoint:
    """The checkpoint, once its signature and the leaf's place in its tree have been seen to hold.

    Raises `ProofRefused` naming what is wrong. The leaf may then be believed, byte for byte.
    """
    checkpoint = verify_checkpoint(proof.checkpoint, keys)
    verify_inclusion(hash_leaf(proof.leaf), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return checkpoint


def _hash(encoded: str) -> bytes:
    found = _decoded(encoded)
    if len(found) != HASH_BYTES:
        raise ProofRefused(f"A hash is not {HASH_BYTES} bytes long.")
    return found


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise ProofRefused("What should be base64 is not.") from error
