"""Budgets, the alerts that were given, and cost centres.

Revision ID: 0013
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.budgets.tables import after_create as guard_budgets
from galerne.kernel import UtcTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_SCOPES = "scope IN ('key', 'workspace', 'organisation', 'cost_centre')"
_SUBJECT = ("organisation_id", "scope", "scope_id", "window_name", "currency")


def upgrade() -> None:
    """Make the tables, and have the database keep the alerts that were given."""
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("scope_id", sa.String(length=100), nullable=False),
        sa.Column("window_name", sa.String(length=10), nullable=False),
        sa.Column("nano", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("hard", sa.Boolean(), nullable=False),
        sa.Column("rule_id", sa.String(length=32), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("nano > 0", name=op.f("ck_budgets_nano_positive")),
        sa.CheckConstraint(_SCOPES, name=op.f("ck_budgets_scope_known")),
        sa.CheckConstraint("window_name IN ('day', 'week', 'month')", name=op.f("ck_budgets_window_known")),
        sa.UniqueConstraint(*_SUBJECT, name=op.f(f"uq_budgets_{'_'.join(_SUBJECT)}")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )
    op.create_table(
        "budget_alerts",
        sa.Column("budget_id", sa.String(length=32), nullable=False),
        sa.Column("period_start", UtcTime(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("budget_nano", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "period_start", "percent", name=op.f("pk_budget_alerts")),
    )
    op.create_index(op.f("ix_budget_alerts_organisation_id_at"), "budget_alerts", ["organisation_id", "at"])
    op.create_table(
        "cost_centres",
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("subject_id", sa.String(length=32), nullable=False),
        sa.Column("cost_centre", sa.String(length=100), nullable=False),
        sa.CheckConstraint("kind IN ('key', 'workspace')", name=op.f("ck_cost_centres_kind_known")),
        sa.PrimaryKeyConstraint("organisation_id", "kind", "subject_id", name=op.f("pk_cost_centres")),
    )
    for statement in guard_budgets(op.get_bind().dialect.name):
        op.execute(statement)
