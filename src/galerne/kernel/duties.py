"""Duties: what must be done again and again, by one process of however many there are, and how that went.

A row for each duty says when it is due, who is at it and until when that counts. Whoever dies at it is followed once
its lease has run out. A lease keeps work from being done twice; it is no lock: a duty must be safe to be done by two at
once, for a clock may be wrong or a process may have been asleep.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import BigInteger, CursorResult, Integer, String, Text, bindparam, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel.database import Table, UtcTime

_ENROL = text(
    "INSERT INTO duties (name, due_at, done, took_ms, failures) VALUES (:name, :at, 0, 0, 0)"
    " ON CONFLICT (name) DO NOTHING"
).bindparams(bindparam("at", type_=UtcTime()))
_LONGEST_PROBLEM = 1000


class DutyRow(Table):
    """One `DutyState`."""

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(UtcTime)
    holder: Mapped[str | None] = mapped_column(String(100))
    lease_until: Mapped[datetime | None] = mapped_column(UtcTime)
    begun_at: Mapped[datetime | None] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    succeeded_at: Mapped[datetime | None] = mapped_column(UtcTime)
    done: Mapped[int] = mapped_column(BigInteger)
    took_ms: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(Integer)
    problem: Mapped[str | None] = mapped_column(Text)


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyState:
    """How a duty stands: when it is due next, who is at it (until `lease_until`), and how its last run went.

    `done` is how many things that run did, `failures` how many runs in a row went wrong, `problem` what was wrong.
    """

    name: str
    due_at: datetime
    holder: str | None
    lease_until: datetime | None
    begun_at: datetime | None
    ended_at: datetime | None
    succeeded_at: datetime | None
    done: int
    took_ms: int
    failures: int
    problem: str | None

    def can_be_taken(self, now: datetime) -> bool:
        """Whether it is due and nobody living is at it."""
        return self.due_at <= now and self.is_free(now)

    def is_free(self, now: datetime) -> bool:
        """Whether nobody is at it, or whoever was has given no sign of life for too long."""
        return self.lease_until is None or self.lease_until <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyRun:
    """How a run of a duty went; `problem` None where all went well. It is due again at `next_at`."""

    begun_at: datetime
    ended_at: datetime
    done: int
    problem: str | None
    next_at: datetime


async def enrol_duties(session: AsyncSession, names: Sequence[str], at: datetime) -> None:
    """Make these duties known, due at once; those that are known stay as they are."""
    row = DutyRow
    known = set(await session.scalars(select(row.name).where(row.name.in_(names))))
    for name in names:
        if name not in known:
            await session.execute(_ENROL, {"name": name, "at": at})


async def take_duty(
    session: AsyncSession, name: str, holder: str, now: datetime, lease: timedelta, *, early: bool = False
) -> bool:
    """Whether `holder` is the one to do it now, until the lease ends; `early` takes also what is not due yet."""
    row = DutyRow
    free = or_(row.lease_until.is_(None), row.lease_until <= now)
    due = [] if early else [row.due_at <= now]
    change = update(row).where(row.name == name, free, *due)
    return await _changed(session, change.values(holder=holder, lease_until=now + lease, begun_at=now))


async def keep_duty(session: AsyncSession, name: str, holder: str, until: datetime) -> bool:
    """Whether it is still `holder`'s, which has until then now; not once another has taken it over."""
    row = DutyRow
    change = update(row).where(row.name == name, row.holder == holder)
    return await _changed(session, change.values(lease_until=until))


async def end_duty(session: AsyncSession, name: str, holder: str, run: DutyRun) -> bool:
    """Write down how a run went and let go of it; False if another has taken it over meanwhile."""
    row = DutyRow
    values: dict[str, Any] = {
        "holder": None,
        "lease_until": None,
        "due_at": run.next_at,
        "ended_at": run.ended_at,
        "done": run.done,
        "took_ms": int((run.ended_at - run.begun_at).total_seconds() * 1000),
        "failures": row.failures + 1 if run.problem else 0,
        "problem": run.problem and run.problem[:_LONGEST_PROBLEM],
    }
    if run.problem is None:
        values["succeeded_at"] = run.ended_at
    return await _changed(session, update(row).where(row.name == name, row.holder == holder).values(values))


async def release_duties(session: AsyncSession, holder: str) -> None:
    """Let go of all that `holder` was at and did not end, so that another may begin it at once."""
    await session.execute(update(DutyRow).where(DutyRow.holder == holder).values(holder=None, lease_until=None))


async def duty_states(session: AsyncSession) -> list[DutyState]:
    """Every known duty, by name."""
    columns = DutyRow.__table__.columns
    return [DutyState(**each) for each in (await session.execute(select(*columns).order_by(DutyRow.name))).mappings()]


async def _changed(session: AsyncSession, change: Any) -> bool:
    result = cast(CursorResult[Any], await session.execute(change.execution_options(synchronize_session=False)))
    return result.rowcount == 1
