"""The price book: plans, and what a million tokens of a model cost from when.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.tables import after_create as guard_billing
from galerne.kernel import UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PLANS = (
    ("free", 1, "standard", "The assistant and the API to try them."),
    ("developer", 2, "standard", "The API, paid by the token."),
    ("pro", 3, "standard", "The assistant for one person, with more of everything."),
    ("team", 4, "priority", "The assistant and the API for a team."),
    ("enterprise", 8, "priority", "Under contract."),
)


def upgrade() -> None:
    """Make the tables, put the plans in, and have the database keep rates as they were set."""
    plans = op.create_table(
        "plans",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("tier", sa.String(length=20), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.CheckConstraint("weight > 0", name=op.f("ck_plans_weight_positive")),
        sa.CheckConstraint("tier IN ('priority', 'standard', 'batch')", name=op.f("ck_plans_tier_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    columns = ("id", "weight", "tier", "description")
    op.bulk_insert(plans, [dict(zip(columns, plan, strict=True)) for plan in _PLANS])
    op.create_table(
        "rates",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model_id", sa.String(length=100), nullable=False),
        sa.Column("token_class", sa.String(length=20), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("effective_from", UtcTime(), nullable=False),
        sa.Column("nano_per_million", sa.BigInteger(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("nano_per_million >= 0", name=op.f("ck_rates_not_negative")),
        sa.CheckConstraint("token_class IN ('input', 'cached', 'output')", name=op.f("ck_rates_token_class_known")),
        sa.CheckConstraint("length(currency) = 3", name=op.f("ck_rates_currency_is_a_code")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rates")),
    )
    op.create_index(
        op.f("ix_rates_model_id_currency_effective_from"), "rates", ["model_id", "currency", "effective_from"]
    )
    for statement in guard_billing(op.get_bind().dialect.name):
        op.execute(statement)
