"""Secrets of webhooks that sign for some time beside the one that replaced them.

Revision ID: 0025
"""

import sqlalchemy as sa
from alembic import op

from galerne.kernel import UtcTime

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "webhook_old_secrets",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("endpoint_id", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("until", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.id"],
            name=op.f("fk_webhook_old_secrets_endpoint_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_old_secrets")),
    )
    op.create_index(op.f("ix_webhook_old_secrets_endpoint_id"), "webhook_old_secrets", ["endpoint_id"])
