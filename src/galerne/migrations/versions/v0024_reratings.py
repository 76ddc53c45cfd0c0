"""Re-ratings, and how far they are applied.

Revision ID: 0024
"""

import sqlalchemy as sa
from alembic import op

from galerne.kernel import UtcTime

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; what was re-rated before was so in one transaction, and is done."""
    op.create_table(
        "reratings",
        sa.Column("digest", sa.String(length=100), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.String(length=32), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.CheckConstraint("applied >= 0 AND events >= changed AND changed >= 0", name=op.f("ck_reratings_counts")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_reratings")),
    )
