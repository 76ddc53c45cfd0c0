"""What is stored of subscriptions: plans' versions and events, both append-only, and a row each to find them by."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class PlanVersionRow(Table):
    """One `PlanVersion`; `offer` holds amounts as integers of nano-units."""

    __tablename__ = "plan_versions"
    __table_args__ = (CheckConstraint("version > 0", name="version_positive"),)

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    offer: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class SubscriptionRow(Table):
    """Where a subscription stands, so that it can be found; `seq` events made it so. An organisation has one open.

    `rule_ids`: the limits that its plan's windows have set.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("seq > 0", name="seq_positive"),
        Index(
            "uq_subscriptions_one_open",
            "organisation_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32), index=True)
    status: Mapped[str] = mapped_column(String(20))
    plan_id: Mapped[str] = mapped_column(String(40))
    seq: Mapped[int]
    next_due_at: Mapped[datetime | None] = mapped_column(UtcTime, index=True)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    rule_ids: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class SubscriptionEventRow(Table):
    """One `Event`. `request_id` is who asked's own name for the wish `asked`: the same wish happens once."""

    __tablename__ = "subscription_events"
    __table_args__ = (
        UniqueConstraint("subscription_id", "seq"),
        UniqueConstraint("organisation_id", "request_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    organisation_id: Mapped[str] = mapped_column(String(32))
    seq: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime] = mapped_column(UtcTime)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    request_id: Mapped[str | None] = mapped_column(String(100))
    asked: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    recorded_at: Mapped[datetime] = mapped_column(UtcTime)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    return [
        statement
        for table in ("plan_versions", "subscription_events")
        for statement in refuse_changes(table, dialect_name)
    ]
