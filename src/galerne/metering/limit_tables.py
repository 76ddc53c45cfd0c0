"""What is stored of limits: rules, what has been taken of each pool, and the leases that gateway processes hold."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel import Table, UtcTime


class LimitRuleRow(Table):
    """One `LimitRule`."""

    __tablename__ = "limit_rules"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount_positive"),
        CheckConstraint("scope IN ('key', 'workspace', 'organisation', 'plan', 'model')", name="scope_known"),
        CheckConstraint("quantity IN ('requests', 'tokens', 'nano', 'concurrent')", name="quantity_known"),
        CheckConstraint("window_name IN ('minute', '5h', 'day', 'week', 'month', 'none')", name="window_known"),
        CheckConstraint("(quantity = 'concurrent') = (window_name = 'none')", name="concurrent_has_no_window"),
        CheckConstraint("(quantity = 'nano') = (currency IS NOT NULL)", name="money_has_a_currency"),
        CheckConstraint("organisation_id IS NULL OR scope NOT IN ('plan', 'model')", name="shared_is_the_operators"),
        CheckConstraint("workspace_id IS NULL OR organisation_id IS NOT NULL", name="workspace_has_an_organisation"),
        Index(None, "scope", "scope_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str | None] = mapped_column(String(32))
    workspace_id: Mapped[str | None] = mapped_column(String(32))
    scope: Mapped[str] = mapped_column(String(20))
    scope_id: Mapped[str] = mapped_column(String(100))
    model: Mapped[str | None] = mapped_column(String(100))
    quantity: Mapped[str] = mapped_column(String(20))
    window_name: Mapped[str] = mapped_column(String(10))
    currency: Mapped[str | None] = mapped_column(String(3))
    amount: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class LimitPoolRow(Table):
    """What has been taken of one pool since `since_ms`.

    A bucket's `taken` is in sixty-thousandths of a unit and had drained until `since_ms`; a window began then; a gauge
    has no beginning. There is no upper bound here: a rule's amount may be lowered below what was taken already.
    """

    __tablename__ = "limit_pools"
    __table_args__ = (
        CheckConstraint("taken >= 0", name="taken_not_negative"),
        CheckConstraint("since_ms >= 0", name="since_not_negative"),
        Index(None, "rule_id"),
    )

    id: Mapped[str] = mapped_column(String(140), primary_key=True)
    rule_id: Mapped[str] = mapped_column(String(32))
    taken: Mapped[int] = mapped_column(BigInteger)
    since_ms: Mapped[int] = mapped_column(BigInteger)


class LimitLeaseRow(Table):
    """What one process holds of a pool, and how much of that it has used.

    `spent` may pass `amount` where requests used more than they had reserved, until the process takes that as well.
    """

    __tablename__ = "limit_leases"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount_not_negative"),
        CheckConstraint("spent >= 0", name="spent_not_negative"),
    )

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    pool_id: Mapped[str] = mapped_column(ForeignKey("limit_pools.id", ondelete="CASCADE"), index=True)
    holder: Mapped[str] = mapped_column(String(32))
    amount: Mapped[int] = mapped_column(BigInteger)
    spent: Mapped[int] = mapped_column(BigInteger)
    window_start_ms: Mapped[int] = mapped_column(BigInteger)
    expires_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
