"""Limits: rules, the pools that gateway processes share, and the leases that they hold of them.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

from galerne.kernel import UtcTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_RULE_CHECKS = {
    "amount_positive": "amount > 0",
    "scope_known": "scope IN ('key', 'workspace', 'organisation', 'plan', 'model')",
    "quantity_known": "quantity IN ('requests', 'tokens', 'nano', 'concurrent')",
    "window_known": "window_name IN ('minute', '5h', 'day', 'week', 'month', 'none')",
    "concurrent_has_no_window": "(quantity = 'concurrent') = (window_name = 'none')",
    "money_has_a_currency": "(quantity = 'nano') = (currency IS NOT NULL)",
    "shared_is_the_operators": "organisation_id IS NULL OR scope NOT IN ('plan', 'model')",
    "workspace_has_an_organisation": "workspace_id IS NULL OR organisation_id IS NOT NULL",
}


def upgrade() -> None:
    """Make the three tables."""
    _rules()
    _pools()
    _leases()


def _rules() -> None:
    op.create_table(
        "limit_rules",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=True),
        sa.Column("workspace_id", sa.String(length=32), nullable=True),
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("scope_id", sa.String(length=100), nullable=False),
        sa.Column("model", sa.String(length=100), nullable=True),
        sa.Column("quantity", sa.String(length=20), nullable=False),
        sa.Column("window_name", sa.String(length=10), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        *(sa.CheckConstraint(rule, name=op.f(f"ck_limit_rules_{name}")) for name, rule in _RULE_CHECKS.items()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_limit_rules")),
    )
    op.create_index(op.f("ix_limit_rules_scope_scope_id"), "limit_rules", ["scope", "scope_id"])


def _pools() -> None:
    op.create_table(
        "limit_pools",
        sa.Column("id", sa.String(length=140), nullable=False),
        sa.Column("rule_id", sa.String(length=32), nullable=False),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("taken >= 0", name=op.f("ck_limit_pools_taken_not_negative")),
        sa.CheckConstraint("since_ms >= 0", name=op.f("ck_limit_pools_since_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_limit_pools")),
    )
    op.create_index(op.f("ix_limit_pools_rule_id"), "limit_pools", ["rule_id"])


def _leases() -> None:
    op.create_table(
        "limit_leases",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("pool_id", sa.String(length=140), nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("window_start_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_limit_leases_amount_not_negative")),
        sa.CheckConstraint("spent >= 0", name=op.f("ck_limit_leases_spent_not_negative")),
        sa.ForeignKeyConstraint(
            ["pool_id"], ["limit_pools.id"], name=op.f("fk_limit_leases_pool_id_limit_pools"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_limit_leases")),
    )
    op.create_index(op.f("ix_limit_leases_pool_id"), "limit_leases", ["pool_id"])
    op.create_index(op.f("ix_limit_leases_expires_at_ms"), "limit_leases", ["expires_at_ms"])
