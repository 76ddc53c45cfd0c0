"""What is stored of budgets: budgets, the alerts that were given, and which cost centre a key or a workspace has."""

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class BudgetRow(Table):
    """One `Budget`."""

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("nano > 0", name="nano_positive"),
        CheckConstraint("scope IN ('key', 'workspace', 'organisation', 'cost_centre')", name="scope_known"),
        CheckConstraint("window_name IN ('day', 'week', 'month')", name="window_known"),
        UniqueConstraint("organisation_id", "scope", "scope_id", "window_name", "currency"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32))
    scope: Mapped[str] = mapped_column(String(20))
    scope_id: Mapped[str] = mapped_column(String(100))
    window_name: Mapped[str] = mapped_column(String(10))
    nano: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    hard: Mapped[bool] = mapped_column(Boolean)
    rule_id: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class BudgetAlertRow(Table):
    """One `Alert`. The key says that there is one for a budget, a period and a threshold, whoever saw it first."""

    __tablename__ = "budget_alerts"
    __table_args__ = (Index(None, "organisation_id", "at"),)

    budget_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(UtcTime, primary_key=True)
    percent: Mapped[int] = mapped_column(primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32))
    spent_nano: Mapped[int] = mapped_column(BigInteger)
    budget_nano: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcTime)


class CostCentreRow(Table):
    """Whom a key's or a workspace's use is shown to."""

    __tablename__ = "cost_centres"
    __table_args__ = (CheckConstraint("kind IN ('key', 'workspace')", name="kind_known"),)

    organisation_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    subject_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    cost_centre: Mapped[str] = mapped_column(String(100))


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    return refuse_changes("budget_alerts", dialect_name)
