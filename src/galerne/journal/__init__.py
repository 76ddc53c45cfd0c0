"""The append-only, hash-chained record of what happened; what the records mean is their writers' business."""

from galerne.journal.append_only import refuse_changes
from galerne.journal.chain import StoredLeaf, Verification, Verifier
from galerne.journal.leaf import GENESIS, LOG, ActorLike, Entry, Head, Outcome
from galerne.journal.service import (
    LeafFilter,
    append,
    append_script,
    read,
    read_all,
    start_verification,
    verify,
    verify_more,
)

__all__ = [
    "GENESIS",
    "LOG",
    "ActorLike",
    "Entry",
    "Head",
    "LeafFilter",
    "Outcome",
    "StoredLeaf",
    "Verification",
    "Verifier",
    "append",
    "append_script",
    "read",
    "read_all",
    "refuse_changes",
    "start_verification",
    "verify",
    "verify_more",
]
