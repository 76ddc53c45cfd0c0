"""The rules that limit someone: read in one query, set, removed, and shown with what is taken. None of it commits."""

from dataclasses import fields
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.metering.limit_tables import LimitRuleRow
from galerne.metering.limit_windows import Window
from galerne.metering.limits import LimitRule

_SAME_NAMES = tuple(field.name for field in fields(LimitRule) if field.name != "window")


async def rules_for(
    session: AsyncSession, key_id: str, workspace_id: str | None, organisation_id: str, plan: str
) -> tuple[LimitRule, ...]:
    """Every rule that a request of this key may meet, those of all models among them, in one query."""
    row = LimitRuleRow
    members = {"key": key_id, "workspace": workspace_id, "organisation": organisation_id, "plan": plan}
    named: list[ColumnElement[bool]] = [
        and_(row.scope == scope, row.scope_id == member) for scope, member in members.items() if member is not None
    ]
    found = await session.scalars(select(row).where(or_(*named, row.scope == "model")))
    return tuple(_rule(each) for each in found)


def _rule(row: LimitRuleRow) -> LimitRule:
    values: dict[str, Any] = {name: getattr(row, name) for name in _SAME_NAMES}
    return LimitRule(**values, window=cast(Window, row.window_name))
