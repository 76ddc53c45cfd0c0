"""What billing stores: plans, and rates that are never changed, only followed by newer ones."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class PlanRow(Table):
    """One `Plan`."""

    __tablename__ = "plans"
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight_positive"),
        CheckConstraint("tier IN ('priority', 'standard', 'batch')", name="tier_known"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    weight: Mapped[int]
    tier: Mapped[str] = mapped_column(String(20))
    description: Mapped[str] = mapped_column(Text)


class RateRow(Table):
    """What 1,000,000 tokens of one class of one model cost from `effective_from` on, in nano-units of `currency`.

    Of rows that differ in nothing but their ids and prices, the one made last counts.
    """

    __tablename__ = "rates"
    __table_args__ = (
        CheckConstraint("nano_per_million >= 0", name="not_negative"),
        CheckConstraint("token_class IN ('input', 'cached', 'output')", name="token_class_known"),
        CheckConstraint("length(currency) = 3", name="currency_is_a_code"),
        Index(None, "model_id", "currency", "effective_from"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(100))
    token_class: Mapped[str] = mapped_column(String(20))
    currency: Mapped[str] = mapped_column(String(3))
    effective_from: Mapped[datetime] = mapped_column(UtcTime)
    nano_per_million: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    return refuse_changes("rates", dialect_name)
