"""Rating: what became of each event, corrections, what waits for a price, hourly sums, closed periods.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.rating.tables import after_create as guard_rating
from galerne.kernel import UtcTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and have the database keep what became of events."""
    _create_closed_periods()
    _create_rating_state()
    _create_unmatched_usage()
    _create_usage_buckets()
    _create_usage_corrections()
    _create_usage_ratings()
    for statement in guard_rating(op.get_bind().dialect.name):
        op.execute(statement)


def _create_closed_periods() -> None:
    op.create_table(
        "closed_periods",
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("closed_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("period", name=op.f("pk_closed_periods")),
    )


def _create_rating_state() -> None:
    op.create_table(
        "rating_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last_event_id", sa.String(length=32), nullable=False),
        sa.Column("runs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rating_state")),
    )


def _create_unmatched_usage() -> None:
    op.create_table(
        "unmatched_usage",
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("occurred_at", UtcTime(), nullable=False),
        sa.Column("found_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_unmatched_usage")),
    )


def _create_usage_buckets() -> None:
    op.create_table(
        "usage_buckets",
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("hour", UtcTime(), nullable=False),
        sa.Column("rate_id", sa.String(length=120), nullable=False),
        sa.Column("model_id", sa.String(length=100), nullable=False),
        sa.Column("token_class", sa.String(length=20), nullable=False),
        sa.Column("service_tier", sa.String(length=20), nullable=False),
        sa.Column("zone", sa.String(length=100), nullable=False),
        sa.Column("batch", sa.Boolean(), nullable=False),
        sa.Column("tier_index", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "period",
            "organisation_id",
            "workspace_id",
            "key_id",
            "hour",
            "rate_id",
            "model_id",
            "token_class",
            "service_tier",
            "zone",
            "batch",
            "tier_index",
            name=op.f("pk_usage_buckets"),
        ),
    )


def _create_usage_corrections() -> None:
    op.create_table(
        "usage_corrections",
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("voided", sa.Boolean(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "input_tokens >= 0 AND cached_tokens >= 0 AND output_tokens >= 0",
            name=op.f("ck_usage_corrections_tokens_not_negative"),
        ),
        sa.PrimaryKeyConstraint("event_id", "number", name=op.f("pk_usage_corrections")),
    )


def _create_usage_ratings() -> None:
    op.create_table(
        "usage_ratings",
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("organisation_id", sa.String(), nullable=False),
        sa.Column("occurred_at", UtcTime(), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("nano", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("correction", sa.Integer(), nullable=False),
        sa.Column("rated_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "nano >= 0 AND (state = 'rated' OR nano = 0)", name=op.f("ck_usage_ratings_nano_only_if_rated")
        ),
        sa.CheckConstraint("state IN ('rated', 'unmatched', 'voided')", name=op.f("ck_usage_ratings_state_known")),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_usage_ratings_revision_not_negative")),
        sa.PrimaryKeyConstraint("event_id", "revision", name=op.f("pk_usage_ratings")),
    )
    op.create_index(
        op.f("ix_usage_ratings_period_organisation_id"), "usage_ratings", ["period", "organisation_id"], unique=False
    )
