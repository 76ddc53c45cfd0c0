"""What rating stores: what became of each event, corrections, what waits for a price, hourly sums, closed periods."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Dialect, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


class UtcHour(TypeDecorator[datetime]):
    """An hour as the number of those before it since 1970, by its beginning; a time within one counts as the next."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """The number; of a time within an hour the next one's, so that hours compare with it as their beginnings do."""
        return None if value is None else -((_EPOCH - value) // _HOUR)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """The beginning of the hour, UTC."""
        return None if value is None else _EPOCH + value * _HOUR


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
        Index(None, "period", "organisation_id", "event_id"),
        {"sqlite_with_rowid": False},  # read in the order of its key, and half as large
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


class RatedKeyRow(Table):
    """Whose rated use is summed, under a number: sums are many, and a number is short."""

    __tablename__ = "rated_keys"
    __table_args__ = (UniqueConstraint("key_id", "workspace_id", "organisation_id"),)

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    organisation_id: Mapped[str] = mapped_column(String(32), index=True)
    workspace_id: Mapped[str] = mapped_column(String(32))
    key_id: Mapped[str] = mapped_column(String(32))


class RatedLineRow(Table):
    """One `LineKey` and its currency, under a number."""

    __tablename__ = "rated_lines"
    __table_args__ = (
        UniqueConstraint(
            *("rate_id", "model_id", "token_class", "service_tier", "zone", "batch", "tier_index"),
            name="uq_rated_lines_line",
        ),
    )

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    rate_id: Mapped[str] = mapped_column(String(120))
    model_id: Mapped[str] = mapped_column(String(100))
    token_class: Mapped[str] = mapped_column(String(20))
    service_tier: Mapped[str] = mapped_column(String(20))
    zone: Mapped[str] = mapped_column(String(100))
    batch: Mapped[bool] = mapped_column(Boolean)
    tier_index: Mapped[int] = mapped_column(Integer)
    currency: Mapped[str] = mapped_column(String(3))


class UsageBucketRow(Table):
    """One key's hour on one line, as billed in `period`; kept by adding, so that it equals the sum of its events."""

    __tablename__ = "usage_buckets"
    __table_args__ = ({"sqlite_with_rowid": False},)

    key_number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    period: Mapped[str] = mapped_column(String(7), primary_key=True)
    hour: Mapped[datetime] = mapped_column(UtcHour, primary_key=True)
    line_number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
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


def after_numbers(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once keys and lines have numbers."""
    return [each for table in ("rated_keys", "rated_lines") for each in refuse_changes(table, dialect_name)]
