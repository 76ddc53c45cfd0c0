"""Rates and modifiers are found by their list: with prices of their own for thousands of customers, each reads few.

Revision ID: 0026
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the indexes; that of models alone is the beginning of the first."""
    op.create_index(op.f("ix_rates_model_id_list_id"), "rates", ["model_id", "list_id"])
    op.create_index(op.f("ix_price_modifiers_list_id"), "price_modifiers", ["list_id"])
    op.drop_index("ix_rates_model_id", "rates")
