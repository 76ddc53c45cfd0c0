"""What is stored of re-ratings: which prices were agreed to, and how far they are applied."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel import Table, UtcTime


class ReratingRow(Table):
    """One `ReratingRun`: events up to the id `cursor` are done. The digest says that what was shown is applied once."""

    __tablename__ = "reratings"
    __table_args__ = (CheckConstraint("applied >= 0 AND events >= changed AND changed >= 0", name="counts"),)

    digest: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[datetime] = mapped_column(UtcTime)
    events: Mapped[int] = mapped_column(BigInteger)
    changed: Mapped[int] = mapped_column(BigInteger)
    cursor: Mapped[str] = mapped_column(String(32))
    applied: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
