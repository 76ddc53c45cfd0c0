"""When organisations got another plan.

Revision ID: 0019
"""

import sqlalchemy as sa
from alembic import op

from galerne.identity.tables import after_plan_changes
from galerne.kernel import UtcTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and have the database keep it append-only; what changed before is not known."""
    op.create_table(
        "plan_changes",
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("before", sa.String(length=40), nullable=False),
        sa.Column("plan", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id"], ["organisations.id"], name=op.f("fk_plan_changes_organisation_id")
        ),
        sa.PrimaryKeyConstraint("organisation_id", "at", name=op.f("pk_plan_changes")),
    )
    for statement in after_plan_changes(op.get_bind().dialect.name):
        op.execute(statement)
