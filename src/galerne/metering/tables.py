"""What metering stores: one row per request, append-only, in the units in which it was counted."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Double, Index, SmallInteger, String, func
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class UsageEventRow(Table):
    """One `UsageEvent`, with `recorded_at`: the database's clock when the row was written."""

    __tablename__ = "usage_events"
    __table_args__ = (
        CheckConstraint("input_tokens >= 0 AND cached_tokens >= 0 AND output_tokens >= 0", name="tokens_not_negative"),
        CheckConstraint(
            "queue_ms >= 0 AND total_ms >= 0 AND (ttft_ms IS NULL OR ttft_ms >= 0)", name="times_not_negative"
        ),
        CheckConstraint("outcome IN ('completed', 'cancelled', 'failed')", name="outcome_known"),
        CheckConstraint("length(id) = 32", name="id_is_a_request_id"),
        Index(None, "organisation_id", "started_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String)
    workspace_id: Mapped[str | None] = mapped_column(String)
    key_id: Mapped[str] = mapped_column(String)
    model: Mapped[str] = mapped_column(String)
    model_version: Mapped[str] = mapped_column(String)
    endpoint: Mapped[str] = mapped_column(String)
    dialect: Mapped[str] = mapped_column(String)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    estimated: Mapped[bool] = mapped_column(Boolean)
    streamed: Mapped[bool] = mapped_column(Boolean)
    partial: Mapped[bool] = mapped_column(Boolean)
    outcome: Mapped[str] = mapped_column(String)
    finish_reason: Mapped[str | None] = mapped_column(String)
    status: Mapped[int] = mapped_column(SmallInteger)
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    queue_ms: Mapped[float] = mapped_column(Double)
    ttft_ms: Mapped[float | None] = mapped_column(Double)
    total_ms: Mapped[float] = mapped_column(Double)
    tier: Mapped[str] = mapped_column(String, server_default="standard")
    zone: Mapped[str] = mapped_column(String, server_default="")
    recorded_at: Mapped[datetime] = mapped_column(UtcTime, server_default=func.now())


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the table exists."""
    return refuse_changes("usage_events", dialect_name)
