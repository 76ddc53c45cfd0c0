"""The journal's Merkle tree: its tiles, the keys that sign it, the checkpoints that they signed.

Revision ID: 0012
"""

import sqlalchemy as sa
from alembic import op

from galerne.journal.tables import after_create_tree
from galerne.kernel import UtcTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the four tables, then what only the database can guard. The tree catches up by itself."""
    _tree()
    _signatures()
    for statement in after_create_tree(op.get_bind().dialect.name):
        op.execute(statement)


def _tree() -> None:
    op.create_table(
        "journal_tree",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_journal_tree_one_row")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_journal_tree_size_not_negative")),
        sa.CheckConstraint("length(chain_hash) = 32", name=op.f("ck_journal_tree_hash_is_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_tree")),
    )
    op.create_table(
        "journal_tiles",
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("level BETWEEN 0 AND 7 AND number >= 0", name=op.f("ck_journal_tiles_place_possible")),
        sa.CheckConstraint(
            "length(hashes) BETWEEN 32 AND 8192 AND length(hashes) % 32 = 0", name=op.f("ck_journal_tiles_hashes_whole")
        ),
        sa.PrimaryKeyConstraint("level", "number", name=op.f("pk_journal_tiles")),
    )


def _signatures() -> None:
    op.create_table(
        "journal_keys",
        sa.Column("id", sa.String(length=8), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_seed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("retired_at", UtcTime(), nullable=True),
        sa.CheckConstraint("length(public_key) = 32", name=op.f("ck_journal_keys_public_key_is_ed25519")),
        sa.CheckConstraint(
            "sealed_seed IS NOT NULL OR retired_at IS NOT NULL", name=op.f("ck_journal_keys_active_can_sign")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_keys")),
        sa.UniqueConstraint("number", name=op.f("uq_journal_keys_number")),
    )
    op.create_table(
        "journal_checkpoints",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.CheckConstraint("number > 0 AND size >= 0", name=op.f("ck_journal_checkpoints_positive")),
        sa.CheckConstraint("length(root) = 32", name=op.f("ck_journal_checkpoints_root_is_sha256")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_journal_checkpoints")),
    )
    op.create_index(op.f("ix_journal_checkpoints_size"), "journal_checkpoints", ["size"])
