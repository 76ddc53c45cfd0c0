"""What must be done again and again, and who is at it.

Revision ID: 0021
"""

import sqlalchemy as sa
from alembic import op

from galerne.kernel import UtcTime

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "duties",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("due_at", UtcTime(), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=True),
        sa.Column("lease_until", UtcTime(), nullable=True),
        sa.Column("begun_at", UtcTime(), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.Column("succeeded_at", UtcTime(), nullable=True),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("took_ms", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duties")),
    )
