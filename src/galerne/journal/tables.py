"""What the journal stores: one row per leaf, and one row that says where the log ends."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, SmallInteger, String
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
