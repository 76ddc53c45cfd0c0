"""What the journal stores: one row per leaf, and one row that says where the log ends."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, SmallInteger, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal.append_only import refuse_changes
from galerne.journal.leaf import GENESIS
from galerne.kernel import Table, UtcTime


class JournalLeaf(Table):
    """One leaf. `leaf` is the record; the named columns repeat parts of it for filters, and `verify` compares them."""

    __tablename__ = "journal_leaves"
    __table_args__ = (
        CheckConstraint("seq > 0", name="seq_positive"),
        CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="outcome_known"),
        CheckConstraint("length(leaf_hash) = 32 AND length(chain_hash) = 32", name="hashes_are_sha256"),
        Index(None, "organisation_id", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcTime)
    organisation_id: Mapped[str] = mapped_column(String)
    workspace_id: Mapped[str | None] = mapped_column(String)
    actor_kind: Mapped[str] = mapped_column(String)
    actor_id: Mapped[str] = mapped_column(String)
    action: Mapped[str] = mapped_column(String)
    resource: Mapped[str] = mapped_column(String)
    outcome: Mapped[str] = mapped_column(String)
    request_id: Mapped[str | None] = mapped_column(String)
    leaf: Mapped[bytes] = mapped_column(LargeBinary)
    leaf_hash: Mapped[bytes] = mapped_column(LargeBinary)
    chain_hash: Mapped[bytes] = mapped_column(LargeBinary)


class JournalHead(Table):
    """The one row that names the last leaf; whoever appends holds its lock, which makes the sequence gapless."""

    __tablename__ = "journal_head"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("seq >= 0", name="seq_not_negative"),
        CheckConstraint("length(chain_hash) = 32", name="hash_is_sha256"),
    )

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    seq: Mapped[int] = mapped_column(BigInteger)
    chain_hash: Mapped[bytes] = mapped_column(LargeBinary)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once both tables exist: guards and the genesis head."""
    genesis = f"X'{GENESIS.hex()}'" if dialect_name == "sqlite" else f"decode('{GENESIS.hex()}', 'hex')"
    return [
        f"INSERT INTO journal_head (id, seq, chain_hash) VALUES (1, 0, {genesis})",  # noqa: S608  # constants of ours
        *refuse_changes("journal_leaves", dialect_name),
        *_head_only_advances(dialect_name),
    ]


def _head_only_advances(dialect_name: str) -> list[str]:
    if dialect_name == "sqlite":
        refuse = "BEGIN SELECT RAISE(ABORT, 'journal_head only advances'); END"
        return [
            f"CREATE TRIGGER journal_head_advances BEFORE UPDATE ON journal_head WHEN NEW.seq <= OLD.seq {refuse}",
            f"CREATE TRIGGER journal_head_stays BEFORE DELETE ON journal_head {refuse}",
        ]
    call = "EXECUTE FUNCTION refuse_change()"
    going_back = "FOR EACH ROW WHEN (NEW.seq <= OLD.seq)"
    return [
        f"CREATE TRIGGER journal_head_advances BEFORE UPDATE ON journal_head {going_back} {call}",
        f"CREATE TRIGGER journal_head_stays BEFORE DELETE ON journal_head FOR EACH ROW {call}",
        f"CREATE TRIGGER journal_head_no_truncate BEFORE TRUNCATE ON journal_head FOR EACH STATEMENT {call}",
    ]


class JournalTree(Table):
    """The one row that says how far the Merkle tree follows the leaves: its size, and the chain hash there."""

    __tablename__ = "journal_tree"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("size >= 0", name="size_not_negative"),
        CheckConstraint("length(chain_hash) = 32", name="hash_is_sha256"),
    )

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    chain_hash: Mapped[bytes] = mapped_column(LargeBinary)


class JournalTile(Table):
    """A tile of the tree: up to 256 hashes of 32 bytes. It only grows at its end."""

    __tablename__ = "journal_tiles"
    __table_args__ = (
        CheckConstraint("level BETWEEN 0 AND 7 AND number >= 0", name="place_possible"),
        CheckConstraint("length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0", name="hashes_whole"),
    )

    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hashes: Mapped[bytes] = mapped_column(LargeBinary)


class JournalKey(Table):
    """A key that signs checkpoints. Its private half is sealed, and gone once its successor has taken over."""

    __tablename__ = "journal_keys"
    __table_args__ = (
        CheckConstraint("length(public_key) = 32", name="public_key_is_ed25519"),
        CheckConstraint("sealed_seed IS NOT NULL OR retired_at IS NOT NULL", name="active_can_sign"),
        UniqueConstraint("number"),
    )

    id: Mapped[str] = mapped_column(String(8), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(200))
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_seed: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcTime)


class JournalCheckpoint(Table):
    """A checkpoint as it was signed: `note` is the record, `size` and `root` repeat parts of it."""

    __tablename__ = "journal_checkpoints"
    __table_args__ = (
        CheckConstraint("number > 0 AND size >= 0", name="positive"),
        CheckConstraint("length(root) = 32", name="root_is_sha256"),
        Index(None, "size"),
    )

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[bytes] = mapped_column(LargeBinary)
    note: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcTime)


def after_create_tree(dialect_name: str) -> list[str]:
    """The statements that a migration runs once the tree's tables exist: guards, and a tree without leaves."""
    genesis = f"X'{GENESIS.hex()}'" if dialect_name == "sqlite" else f"decode('{GENESIS.hex()}', 'hex')"
    guards = _sqlite_tree_guards() if dialect_name == "sqlite" else _postgresql_tree_guards()
    return [
        f"INSERT INTO journal_tree (id, size, chain_hash) VALUES (1, 0, {genesis})",  # noqa: S608  # constants of ours
        *refuse_changes("journal_checkpoints", dialect_name),
        *guards,
    ]


_FOREIGN_TO_A_KEY = (
    "NEW.id <> OLD.id OR NEW.number <> OLD.number OR NEW.name <> OLD.name OR NEW.public_key <> OLD.public_key"
)
_NOT_LONGER = (
    "NEW.level <> OLD.level OR NEW.number <> OLD.number OR length(NEW.hashes) <= length(OLD.hashes) "
    "OR substr(NEW.hashes, 1, length(OLD.hashes)) <> OLD.hashes"
)
_GUARDED = (
    ("journal_tree", "NEW.size <= OLD.size", "only advances"),
    (
        "journal_tiles",
        _NOT_LONGER,
        "only grows",
    ),
    ("journal_keys", _FOREIGN_TO_A_KEY, "keeps its keys"),
)
"""Tables of which rows change in one way only: which, when a change is another, and what is said then."""


def _sqlite_tree_guards() -> list[str]:
    statements: list[str] = []
    for table, wrong, law in _GUARDED:
        refuse = f"BEGIN SELECT RAISE(ABORT, '{table} {law}'); END"
        statements.append(f"CREATE TRIGGER {table}_lawful BEFORE UPDATE ON {table} WHEN {wrong} {refuse}")
        statements.append(f"CREATE TRIGGER {table}_stays BEFORE DELETE ON {table} {refuse}")
    return statements


def _postgresql_tree_guards() -> list[str]:
    call = "EXECUTE FUNCTION refuse_change()"
    statements: list[str] = []
    for table, wrong, _law in _GUARDED:
        statements += [
            f"CREATE TRIGGER {table}_lawful BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({wrong}) {call}",
            f"CREATE TRIGGER {table}_stays BEFORE DELETE ON {table} FOR EACH ROW {call}",
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {call}",
        ]
    return statements
