"""What rating stores: what became of each event, corrections, what waits for a price, hourly sums, closed periods."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class UsageRatingRow(Table):
    """What became of an event: its first revision, and one more for each correction or re-rating; the last counts.

    It is billed in `period`: what it adds there is `nano` less that of the revision before. `version` is the price
    book's when it was rated: what it was rated by can be worked out again.
    """

    __tablename__ = "usage_ratings"
    __table_args__ = (
        CheckConstraint("state IN ('rated', 'unmatched', 'voided')", name="state_known"),
        CheckConstraint("nano >= 0 AND (state = 'rated' OR nano = 0)", name="nano_only_if_rated"),
        CheckConstraint("revision >= 0", name="revision_not_negative"),
        Index(None, "period", "organisation_id"),
    )

    event_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    state: Mapped[str] = mapped_column(String(10))
    organisation_id: Mapped[str] = mapped_column(String)
    occurred_at: Mapped[datetime] = mapped_column(UtcTime)
    period: Mapped[str] = mapped_column(String(7))
    version: Mapped[int] = mapped_column(BigInteger)
    nano: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str | None] = mapped_column(String(3))
    correction: Mapped[int] = mapped_column(Integer)
    rated_at: Mapped[datetime] = mapped_column(UtcTime)


class UnmatchedUsageRow(Table):
    """An event that has no price yet; the row goes when it has one."""

    __tablename__ = "unmatched_usage"

    event_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String)
    model: Mapped[str] = mapped_column(String)
    occurred_at: Mapped[datetime] = mapped_column(UtcTime)
    found_at: Mapped[datetime] = mapped_column(UtcTime)


class UsageCorrectionRow(Table):
    """What an event shall count as from now on; the event itself stays as it was recorded. The newest counts."""

    __tablename__ = "usage_corrections"
    __table_args__ = (
        CheckConstraint("input_tokens >= 0 AND cached_tokens >= 0 AND output_tokens >= 0", name="tokens_not_negative"),
    )

    event_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    voided: Mapped[bool] = mapped_column(Boolean)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class UsageBucketRow(Table):
    """One key's hour on one line, as billed in `period`; kept by adding, so that it equals the sum of its events."""

    __tablename__ = "usage_buckets"

    period: Mapped[str] = mapped_column(String(7), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcTime, primary_key=True)
    rate_id: Mapped[str] = mapped_column(String(120), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    token_class: Mapped[str] = mapped_column(String(20), primary_key=True)
    service_tier: Mapped[str] = mapped_column(String(20), primary_key=True)
    zone: Mapped[str] = mapped_column(String(100), primary_key=True)
    batch: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    tier_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    currency: Mapped[str] = mapped_column(String(3))
    requests: Mapped[int] = mapped_column(BigInteger)
    quantity: Mapped[int] = mapped_column(BigInteger)
    nano: Mapped[int] = mapped_column(BigInteger)


class ClosedPeriodRow(Table):
    """A month that is closed: what comes late for it is billed in the next open one."""

    __tablename__ = "closed_periods"

    period: Mapped[str] = mapped_column(String(7), primary_key=True)
    closed_at: Mapped[datetime] = mapped_column(UtcTime)


class RatingStateRow(Table):
    """One row: whoever rates holds it for the transaction, so that two never rate the same events."""

    __tablename__ = "rating_state"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    last_event_id: Mapped[str] = mapped_column(String(32))
    runs: Mapped[int] = mapped_column(BigInteger)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    tables = ("usage_ratings", "usage_corrections", "closed_periods")
    guards = [statement for table in tables for statement in refuse_changes(table, dialect_name)]
    return [*guards, "INSERT INTO rating_state (id, last_event_id, runs) VALUES (1, '', 0)"]
