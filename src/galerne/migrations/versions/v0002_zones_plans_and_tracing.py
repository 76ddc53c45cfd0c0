"""Where a tenant's requests may go, which plan it has, whether its text may be traced, and who runs the installation.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FIRST_ADMINISTRATOR = """
UPDATE users SET role = 'installation_admin' WHERE id = (
  SELECT id FROM users WHERE role = 'organization_admin' ORDER BY created_at, id LIMIT 1
)"""


def upgrade() -> None:
    """Add the columns, then give the first administrator the role that now includes what organisations share."""
    for table in ("organisations", "workspaces", "api_keys"):
        op.add_column(table, sa.Column("zones", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("organisations", sa.Column("plan", sa.String(40), server_default="developer", nullable=False))
    op.add_column("workspaces", sa.Column("trace_content", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(FIRST_ADMINISTRATOR)
