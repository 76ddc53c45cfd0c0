"""Price terms name the currencies of all of an organisation's accounts.

Revision ID: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what was recorded before names one currency, as it did."""
    op.add_column(
        "price_terms", sa.Column("other_currencies", sa.String(length=200), server_default="", nullable=False)
    )
