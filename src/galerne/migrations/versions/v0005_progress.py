"""What is needed to settle the requests of a gateway that died, and the tier and zone that served a request.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and add the columns."""
    op.create_table(
        "gateway_progress",
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "input_tokens >= 0 AND cached_tokens >= 0 AND output_tokens >= 0",
            name=op.f("ck_gateway_progress_tokens_not_negative"),
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_gateway_progress")),
    )
    op.create_index(op.f("ix_gateway_progress_holder"), "gateway_progress", ["holder"], unique=False)
    op.create_table(
        "gateway_processes",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateway_processes")),
    )
    op.add_column("usage_events", sa.Column("tier", sa.String(), server_default="standard", nullable=False))
    op.add_column("usage_events", sa.Column("zone", sa.String(), server_default="", nullable=False))
