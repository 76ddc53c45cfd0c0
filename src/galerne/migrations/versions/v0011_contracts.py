"""Contracts: versions and signatures.

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.contracts.tables import after_create as guard_contracts
from galerne.kernel import UtcTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and have the database keep what was drafted and signed."""
    op.create_table(
        "contracts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contracts")),
    )
    op.create_index(op.f("ix_contracts_organisation_id"), "contracts", ["organisation_id"])
    op.create_table(
        "contract_versions",
        sa.Column("contract_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("effective_from", UtcTime(), nullable=False),
        sa.Column("terms", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_contract_versions_version_positive")),
        sa.ForeignKeyConstraint(["contract_id"], ["contracts.id"], name=op.f("fk_contract_versions_contract_id")),
        sa.PrimaryKeyConstraint("contract_id", "version", name=op.f("pk_contract_versions")),
    )
    op.create_table(
        "contract_signatures",
        sa.Column("contract_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("signed_by", sa.String(length=200), nullable=False),
        sa.Column("signed_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["contract_id", "version"],
            ["contract_versions.contract_id", "contract_versions.version"],
            name=op.f("fk_contract_signatures_contract_id_version"),
        ),
        sa.PrimaryKeyConstraint("contract_id", "version", name=op.f("pk_contract_signatures")),
    )
    for statement in guard_contracts(op.get_bind().dialect.name):
        op.execute(statement)
