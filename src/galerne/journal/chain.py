"""What makes a stored journal sound: each leaf as it was hashed, none missing, moved, or cut off the end. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from galerne.journal.leaf import GENESIS, LOG, Head, Outcome, decode, extend, timestamp
from galerne.journal.merkle import hash_leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLeaf:
    """A leaf as it lies in the database: `leaf`, the exact bytes that were hashed; the columns repeat parts of it."""

    seq: int
    at: datetime
    organisation_id: str
    workspace_id: str | None
    actor_kind: str
    actor_id: str
    action: str
    resource: str
    outcome: Outcome
    request_id: str | None
    leaf: bytes
    leaf_hash: bytes
    chain_hash: bytes

    @property
    def detail(self) -> dict[str, str | int | bool | None]:
        """What the entry said beyond its named fields."""
        return decode(self.leaf)["detail"]

    def json_line(self) -> bytes:
        """This leaf and its hashes as one line of canonical JSON, enough to check it without the database."""
        hashes = (self.chain_hash.hex().encode(), self.leaf, self.leaf_hash.hex().encode())
        return b'{"chain_hash":"%b","leaf":%b,"leaf_hash":"%b"}\n' % hashes


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found: `count` sound leaves from the first on, the head as stored, and the first problem if any."""

    count: int
    head: Head
    problem: str | None = None
    problem_seq: int | None = None


@dataclass(slots=True)
class Verifier:
    """Walks over the leaves in order and remembers only the chain hash and the first problem.

    `head` and `last_stored_seq` are read together, before the first leaf, so appends meanwhile do not disturb the walk.
    """

    head: Head
    last_stored_seq: int
    count: int = field(default=0, init=False)
    _chain_hash: bytes = field(default=GENESIS, init=False)
    _problem: tuple[str, int] | None = field(default=None, init=False)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to walk over: the head is reached or a problem is found."""
        return self._problem is not None or self.count >= self.head.seq

    def check(self, stored: StoredLeaf) -> bool:
        """Take the next leaf; False when it is not what it must be."""
        problem = _find_problem(stored, self.count + 1, self._chain_hash)
        if problem is not None:
            self._problem = problem
            return False
        self.count += 1
        self._chain_hash = stored.chain_hash
        return True

    def result(self) -> Verification:
        """The verdict, once there are no more leaves up to the head."""
        problem, seq = self._problem or self._find_problem_at_the_end() or (None, None)
        return Verification(self.count, self.head, problem, seq)

    def _find_problem_at_the_end(self) -> tuple[str, int] | None:
        if self.count < self.head.seq:
            return (
                f"the log is cut off: the head names leaf {self.head.seq}, the last leaf is {self.count}",
                self.count + 1,
            )
        if self.last_stored_seq > self.head.seq:
            return f"there are leaves beyond the head, which names leaf {self.head.seq}", self.head.seq + 1
        if self._chain_hash != self.head.chain_hash:
            return "the head's chain hash is not that of the last leaf", self.head.seq
        return None


def _find_problem(stored: StoredLeaf, expected_seq: int, chain_hash: bytes) -> tuple[str, int] | None:
    if stored.seq != expected_seq:
        return f"leaf {expected_seq} is missing: the next one stored is {stored.seq}", expected_seq
    if hash_leaf(stored.leaf) != stored.leaf_hash:
        return "the leaf's bytes do not match its hash: it was altered", expected_seq
    if extend(chain_hash, stored.leaf_hash) != stored.chain_hash:
        return "the chain breaks here: this leaf, or its place, is not the one that was appended", expected_seq
    if not _columns_agree(stored):
        return "the columns beside the leaf do not say what the leaf says", expected_seq
    return None


def _columns_agree(stored: StoredLeaf) -> bool:
    fields = decode(stored.leaf)
    actor: dict[str, Any] = fields["actor"]
    said = (
        fields["v"],
        fields["log"],
        fields["seq"],
        fields["ts"],
        fields["action"],
        fields["resource"],
        fields["outcome"],
    )
    shown = (1, LOG, stored.seq, timestamp(stored.at), stored.action, stored.resource, stored.outcome)
    said_actor = (actor["kind"], actor["id"], actor["organisation_id"], actor["workspace_id"], fields["request_id"])
    shown_actor = (stored.actor_kind, stored.actor_id, stored.organisation_id, stored.workspace_id, stored.request_id)
    return said == shown and said_actor == shown_actor
