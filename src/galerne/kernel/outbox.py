"""The outbox: news of what happened, written in the transaction in which it happened, for whoever is to hear of it.

A worker hands each to those whom `apps.duties` names and takes it out in the transaction in which they heard it; so
each is heard once by whatever they write to this database, and nothing is lost when a process is killed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel.database import Table, UtcTime


class OutboxRow(Table):
    """One `News` that nobody has heard yet."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "at", "id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    topic: Mapped[str] = mapped_column(String(60))
    whose: Mapped[str] = mapped_column(String(32))
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(UtcTime)


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """That something happened at `at`: `topic` says what (`budget.reached`), `whose` to whom it belongs.

    `id` stays the same however often it is told; `body` is what JSON can hold.
    """

    id: str
    topic: str
    whose: str
    body: dict[str, Any]
    at: datetime


async def publish(session: AsyncSession, news: Sequence[News]) -> None:
    """Put news into the outbox; they are told if and only if the transaction is committed."""
    session.add_all(
        OutboxRow(id=each.id, topic=each.topic, whose=each.whose, body=each.body, at=each.at) for each in news
    )
    await session.flush()


async def waiting_news(session: AsyncSession, limit: int = 1000) -> list[str]:
    """The ids of the oldest news that were not heard yet."""
    return list(await session.scalars(select(OutboxRow.id).order_by(OutboxRow.at, OutboxRow.id).limit(limit)))


async def take_news(session: AsyncSession, news_id: str) -> News | None:
    """News, taken out of the outbox by this transaction; None where another has heard it."""
    row = OutboxRow
    taken = delete(row).where(row.id == news_id).returning(row.id, row.topic, row.whose, row.body, row.at)
    found = (await session.execute(taken.execution_options(synchronize_session=False))).one_or_none()
    return None if found is None else News(id=found[0], topic=found[1], whose=found[2], body=found[3], at=found[4])
