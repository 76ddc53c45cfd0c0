"""The append-only, hash-chained record of what happened; what the records mean is their writers' business.

For a verifier without server or database: `merkle`, `tiles`, `note`, `checkpoint`, `replay` import nothing of either.
"""

from galerne.journal.append_only import refuse_changes
from galerne.journal.audit import Audit, audit
from galerne.journal.chain import StoredLeaf, Verification, Verifier
from galerne.journal.checkpoint import (
    Checkpoint,
    Proof,
    parse_proof,
    verify_checkpoint,
    verify_growth,
    verify_proof,
)
from galerne.journal.following import Follower
from galerne.journal.leaf import GENESIS, LOG, ActorLike, Entry, Head, Outcome
from galerne.journal.merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofRefused,
    hash_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from galerne.journal.note import Signer, VerifierKey, parse_key
from galerne.journal.replay import Replayed, TreeReplay, check_root, verify_export
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
from galerne.journal.signing import (
    CheckpointRefused,
    PublishedKey,
    SignedCheckpoint,
    checkpoint_over,
    checkpoints_between,
    latest_checkpoint,
    list_keys,
    prove_leaf,
    rotate_key,
)
from galerne.journal.tiles import TileId, TilePart, parse_path
from galerne.journal.tree import (
    JournalAltered,
    TreeState,
    consistency_proof,
    grow_tree,
    inclusion_proof,
    inclusion_proofs,
    read_tile,
    read_tiles,
    tree_root,
    tree_state,
)

__all__ = [
    "EMPTY_ROOT",
    "GENESIS",
    "LOG",
    "ActorLike",
    "Audit",
    "Checkpoint",
    "CheckpointRefused",
    "Entry",
    "Follower",
    "Frontier",
    "Head",
    "JournalAltered",
    "LeafFilter",
    "Outcome",
    "Proof",
    "ProofRefused",
    "PublishedKey",
    "Replayed",
    "SignedCheckpoint",
    "Signer",
    "StoredLeaf",
    "TileId",
    "TilePart",
    "TreeReplay",
    "TreeState",
    "Verification",
    "Verifier",
    "VerifierKey",
    "append",
    "append_script",
    "audit",
    "check_root",
    "checkpoint_over",
    "checkpoints_between",
    "consistency_proof",
    "grow_tree",
    "hash_leaf",
    "inclusion_proof",
    "inclusion_proofs",
    "latest_checkpoint",
    "list_keys",
    "parse_key",
    "parse_path",
    "parse_proof",
    "prove_leaf",
    "read",
    "read_all",
    "read_tile",
    "read_tiles",
    "refuse_changes",
    "root_of",
    "rotate_key",
    "start_verification",
    "tree_root",
    "tree_state",
    "verify",
    "verify_checkpoint",
    "verify_consistency",
    "verify_export",
    "verify_growth",
    "verify_inclusion",
    "verify_more",
    "verify_proof",
]
