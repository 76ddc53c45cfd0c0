"""What invoices over nothing to pay say.

Revision ID: 0020
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.invoices.tables import after_empty_invoices

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, append-only; what was found empty before is not known any more."""
    op.create_table(
        "empty_invoices",
        sa.Column("invoice_id", sa.String(length=32), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_empty_invoices_invoice_id")),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("pk_empty_invoices")),
    )
    for statement in after_empty_invoices(op.get_bind().dialect.name):
        op.execute(statement)
