"""Plans' versions with their fees, and subscriptions.

Revision ID: 0008
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from galerne.billing.subscriptions.tables import after_create as guard_subscriptions
from galerne.kernel import UtcTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_OFFERED_AT = datetime(2026, 11, 23, tzinfo=UTC)


def _fees(month_nano: int, year_nano: int | None = None) -> list[dict[str, object]]:
    by_interval = {"month": month_nano, "year": year_nano}
    return [
        {"interval": interval, "currency": currency, "nano": nano}
        for currency in ("EUR", "USD")
        for interval, nano in by_interval.items()
        if nano is not None
    ]


def _windows(five_hours: int, week: int, per_seat: bool = False) -> list[dict[str, object]]:
    return [
        {"quantity": "tokens", "window": window, "amount": amount, "currency": None, "per_seat": per_seat}
        for window, amount in (("5h", five_hours), ("week", week))
    ]


def _offer(fees: list[dict[str, object]], windows: list[dict[str, object]], **more: object) -> dict[str, object]:
    kept = {"per_seat": False, "tax_inclusive": False, "trial_days": 0, "self_serve": True, "entitlements": {}}
    return {"fees": fees, "windows": windows, **kept, **more}


_OFFERS = {
    "free": _offer(_fees(0), _windows(100_000, 1_000_000), entitlements={"assistant": True, "api": True}),
    "developer": _offer(_fees(0), [], entitlements={"api": True, "pay_as_you_go": True}),
    "pro": _offer(
        _fees(14_990_000_000, 149_900_000_000),
        _windows(2_000_000, 20_000_000),
        tax_inclusive=True,
        entitlements={"assistant": True, "api": True},
    ),
    "team": _offer(
        _fees(24_990_000_000, 249_900_000_000),
        _windows(3_000_000, 30_000_000, per_seat=True),
        per_seat=True,
        trial_days=14,
        entitlements={"assistant": True, "api": True, "pay_as_you_go": True, "shared_projects": True},
    ),
    "enterprise": _offer(
        _fees(0),
        [],
        self_serve=False,
        entitlements={"assistant": True, "api": True, "pay_as_you_go": True, "shared_projects": True, "contract": True},
    ),
}


def upgrade() -> None:
    """Make the tables, put the plans' first versions in, and have the database keep what was recorded."""
    _plan_versions()
    _subscriptions()
    for statement in guard_subscriptions(op.get_bind().dialect.name):
        op.execute(statement)


def _plan_versions() -> None:
    versions = op.create_table(
        "plan_versions",
        sa.Column("plan_id", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("offer", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_plan_versions_version_positive")),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_plan_versions_plan_id")),
        sa.PrimaryKeyConstraint("plan_id", "version", name=op.f("pk_plan_versions")),
    )
    rows = [
        {"plan_id": plan, "version": 1, "offer": offer, "created_at": _OFFERED_AT} for plan, offer in _OFFERS.items()
    ]
    op.bulk_insert(versions, rows)


def _subscriptions() -> None:
    is_open = sa.text("ended_at IS NULL")
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("plan_id", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("next_due_at", UtcTime(), nullable=True),
        sa.Column("ended_at", UtcTime(), nullable=True),
        sa.Column("rule_ids", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("seq > 0", name=op.f("ck_subscriptions_seq_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
    )
    op.create_index(op.f("ix_subscriptions_organisation_id"), "subscriptions", ["organisation_id"])
    op.create_index(op.f("ix_subscriptions_next_due_at"), "subscriptions", ["next_due_at"])
    op.create_index(
        "uq_subscriptions_one_open",
        "subscriptions",
        ["organisation_id"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_table(
        "subscription_events",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("subscription_id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(length=100), nullable=True),
        sa.Column("asked", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("recorded_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_subscription_events_subscription_id")
        ),
        sa.UniqueConstraint("subscription_id", "seq", name=op.f("uq_subscription_events_subscription_id_seq")),
        sa.UniqueConstraint(
            "organisation_id", "request_id", name=op.f("uq_subscription_events_organisation_id_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription_events")),
    )
