"""Use cases of budgets: setting them, giving alerts, showing costs to cost centres. None of them commits.

A hard budget is enforced where every limit is: it sets a limit in money, and nothing here stands in a request's way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.budgets.events import alert_news
from galerne.billing.budgets.tables import BudgetAlertRow, BudgetRow, CostCentreRow
from galerne.billing.budgets.thresholds import (
    Alert,
    Budget,
    BudgetScope,
    BudgetWindow,
    NewBudget,
    budget_period,
    centre_of,
    check_budget,
    reached,
    spent_of,
)
from galerne.billing.charges import Period
from galerne.billing.spending import Spent, spent
from galerne.governance import SYSTEM, Actor, Permission, require
from galerne.identity import find_key, find_workspace
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Forbidden, Ids, NotFound, Query, Script, run_in_session
from galerne.kernel.outbox import News, publish
from galerne.metering import NewLimit, limit_ids, remove_limit, set_limit

MOST_BUDGETS = 1000
"""Of one organisation."""

_ALERTS = cast(SqlTable, BudgetAlertRow.__table__)
_ALERT = """
INSERT INTO budget_alerts (budget_id, period_start, percent, organisation_id, spent_nano, budget_nano, at)
VALUES (:budget_id, :period_start, :percent, :organisation_id, :spent_nano, :budget_nano, :at)
ON CONFLICT (budget_id, period_start, percent) DO NOTHING RETURNING percent"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """A budget and what has been spent of it in the period that runs."""

    budget: Budget
    period: Period
    spent_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostShare:
    """What a cost centre's keys were worth; None gathers those without one."""

    cost_centre: str | None
    quantity: int
    nano: int


async def set_budget(session: AsyncSession, actor: Actor, new: NewBudget, ids: Ids, clock: Clock) -> Budget:
    """The budget, set, or changed if one for the same subject, window and currency is there; journalled.

    `NotFound` for a key or workspace that is not `actor`'s, `BadRequest` for what is no budget.
    """
    _check_actor(actor)
    check_budget(new)
    await _check_subject(session, actor, new)
    row = await _same(session, actor, new)
    if row is None:
        if len(await _rows(session, actor.organisation_id)) >= MOST_BUDGETS:
            raise BadRequest(f"There are {MOST_BUDGETS} budgets already; remove one.", param="scope")
        row = BudgetRow(
            id=ids.new(),
            organisation_id=actor.organisation_id,
            scope=new.scope,
            scope_id=new.scope_id,
            window_name=new.window,
            currency=new.currency,
            created_at=clock.now(),
        )
        session.add(row)
    row.nano, row.hard = new.nano, new.hard
    row.rule_id = await _enforce(session, actor, new, row.rule_id, clock)
    await session.flush()
    await append(session, [_entry("set", actor, _budget(row), clock.now())])
    return _budget(row)


async def remove_budget(session: AsyncSession, actor: Actor, budget_id: str, clock: Clock) -> Budget:
    """The budget, which is no more, nor its limit; alerts that were given stay. `NotFound` for another's."""
    _check_actor(actor)
    found = next((row for row in await _rows(session, actor.organisation_id) if row.id == budget_id), None)
    if found is None:
        raise NotFound("There is no such budget.", code="budget_not_found", param="id")
    budget = _budget(found)
    await _enforce(session, actor, replace(budget, hard=False), found.rule_id, clock)
    await session.delete(found)
    await session.flush()
    await append(session, [_entry("removed", actor, budget, clock.now())])
    return budget


async def list_budgets(session: AsyncSession, organisation_id: str, now: datetime) -> list[BudgetUse]:
    """An organisation's budgets with what has been spent of each in the period that runs."""
    budgets = [_budget(row) for row in await _rows(session, organisation_id)]
    return await _uses(session, organisation_id, budgets, now)


async def give_alerts(session: AsyncSession, organisation_id: str, clock: Clock) -> list[Alert]:
    """The alerts that are due and that nobody has given yet, given: each threshold once a period, journalled and told.

    Any number of processes may call this, as often as they like: the database lets one of them give each alert.
    """
    now, given, news = clock.now(), list[Alert](), list[News]()
    for use in await list_budgets(session, organisation_id, now):
        for percent in reached(use.spent_nano, use.budget.nano):
            alert = Alert(
                budget_id=use.budget.id,
                organisation_id=organisation_id,
                period_start=use.period.start,
                percent=percent,
                spent_nano=use.spent_nano,
                budget_nano=use.budget.nano,
                at=now,
            )
            if await run_in_session(session, _alert_script(alert)):
                given.append(alert)
                news.append(alert_news(alert, use.budget))
    if given:
        await publish(session, news)
        await append(session, [_alert_entry(alert) for alert in given])
    return given


async def organisations_with_budgets(session: AsyncSession) -> list[str]:
    """The ids of the organisations that have budgets."""
    return list(await session.scalars(select(BudgetRow.organisation_id).distinct().order_by(BudgetRow.organisation_id)))


async def list_alerts(session: AsyncSession, organisation_id: str | None, limit: int = 100) -> list[Alert]:
    """The alerts that were given, newest first, to one organisation or, for the operator alone, to all."""
    row = BudgetAlertRow
    query = select(row).order_by(row.at.desc(), row.budget_id, row.percent.desc()).limit(limit)
    if organisation_id is not None:
        query = query.where(row.organisation_id == organisation_id)
    names = [column.name for column in _ALERTS.columns]
    return [Alert(**{name: getattr(each, name) for name in names}) for each in await session.scalars(query)]


async def set_cost_centre(
    session: AsyncSession, actor: Actor, subject: tuple[BudgetScope, str], cost_centre: str | None, clock: Clock
) -> None:
    """Show the use of a key or a workspace to that cost centre from now on, or to none; journalled.

    It is a label of the present: the past is shown to it too. A key's own goes before its workspace's.
    """
    _check_actor(actor)
    kind, subject_id = subject
    if kind not in ("key", "workspace"):
        raise BadRequest("A cost centre is of a key or a workspace.", param="scope")
    if cost_centre is not None and not (1 <= len(cost_centre) <= 100 and cost_centre.isprintable()):
        raise BadRequest("A cost centre has 1 to 100 printable characters.", param="cost_centre")
    await _check_own(session, actor, kind, subject_id)
    row = CostCentreRow
    await session.execute(
        delete(row).where(row.organisation_id == actor.organisation_id, row.kind == kind, row.subject_id == subject_id)
    )
    if cost_centre is not None:
        session.add(
            row(organisation_id=actor.organisation_id, kind=kind, subject_id=subject_id, cost_centre=cost_centre)
        )
    await session.flush()
    detail = {"cost_centre": cost_centre}
    entry = Entry(
        action="cost_centre.set",
        actor=actor,
        resource=f"{kind}:{subject_id}",
        outcome="done",
        at=clock.now(),
        detail=detail,
    )
    await append(session, [entry])


async def showback(session: AsyncSession, organisation_id: str, currency: str, period: Period) -> list[CostShare]:
    """What an organisation's use in a period was worth, by cost centre, the dearest first."""
    centres = await _centres(session, organisation_id)
    sums: dict[str | None, tuple[int, int]] = {}
    for each in await spent(session, organisation_id, currency, period):
        name = centre_of(each, centres)
        quantity, nano = sums.get(name, (0, 0))
        sums[name] = (quantity + each.quantity, nano + each.nano)
    shares = [CostShare(cost_centre=name, quantity=quantity, nano=nano) for name, (quantity, nano) in sums.items()]
    return sorted(shares, key=lambda share: (-share.nano, share.cost_centre or ""))


async def _uses(
    session: AsyncSession, organisation_id: str, budgets: Sequence[Budget], now: datetime
) -> list[BudgetUse]:
    centres = await _centres(session, organisation_id) if budgets else {}
    known: dict[tuple[Period, str], list[Spent]] = {}
    uses: list[BudgetUse] = []
    for budget in budgets:
        period = budget_period(budget.window, now)
        name = (period, budget.currency)
        if name not in known:
            known[name] = await spent(session, organisation_id, budget.currency, period)
        uses.append(BudgetUse(budget=budget, period=period, spent_nano=spent_of(budget, known[name], centres)))
    return uses


async def _enforce(
    session: AsyncSession, actor: Actor, new: NewBudget, rule_id: str | None, clock: Clock
) -> str | None:
    if new.hard and new.scope != "cost_centre":
        limit = NewLimit(
            scope=new.scope,
            scope_id=new.scope_id,
            quantity="nano",
            window=new.window,
            amount=new.nano,
            currency=new.currency,
        )
        return (await set_limit(session, actor, limit, clock)).id
    if rule_id is not None and await limit_ids(session, [rule_id]):
        await remove_limit(session, actor, rule_id, clock)
    return None


async def _check_subject(session: AsyncSession, actor: Actor, new: NewBudget) -> None:
    if new.scope == "organisation":
        if new.scope_id != actor.organisation_id:
            raise NotFound("This is not your organisation's id.", param="scope_id")
    elif new.scope == "cost_centre":
        if not (1 <= len(new.scope_id) <= 100 and new.scope_id.isprintable()):
            raise BadRequest("A cost centre has 1 to 100 printable characters.", param="scope_id")
    else:
        await _check_own(session, actor, new.scope, new.scope_id)


async def _check_own(session: AsyncSession, actor: Actor, kind: str, subject_id: str) -> None:
    if kind == "workspace":
        await find_workspace(session, actor, subject_id)
        return
    key = await find_key(session, actor, subject_id)
    if key.id != subject_id:
        raise BadRequest(f"Name the key by its id, {key.id}.", param="scope_id")


def _check_actor(actor: Actor) -> None:
    require(actor, Permission.LIMITS_MANAGE)
    if actor.workspace_id is not None:
        raise Forbidden("A workspace's key cannot set budgets; use a key of the whole organisation.")


def _alert_script(alert: Alert) -> Script[bool]:
    names = [column.name for column in _ALERTS.columns]
    return bool((yield Query(_ALERT, {name: getattr(alert, name) for name in names})))


async def _rows(session: AsyncSession, organisation_id: str) -> list[BudgetRow]:
    query = select(BudgetRow).where(BudgetRow.organisation_id == organisation_id)
    return list(await session.scalars(query.order_by(BudgetRow.created_at, BudgetRow.id)))


async def _same(session: AsyncSession, actor: Actor, new: NewBudget) -> BudgetRow | None:
    row = BudgetRow
    query = select(row).where(
        row.organisation_id == actor.organisation_id,
        row.scope == new.scope,
        row.scope_id == new.scope_id,
        row.window_name == new.window,
        row.currency == new.currency,
    )
    return await session.scalar(query.with_for_update())


async def _centres(session: AsyncSession, organisation_id: str) -> dict[tuple[str, str], str]:
    row = CostCentreRow
    query = select(row.kind, row.subject_id, row.cost_centre).where(row.organisation_id == organisation_id)
    return {(kind, subject_id): name for kind, subject_id, name in await session.execute(query)}


def _budget(row: BudgetRow) -> Budget:
    return Budget(
        id=row.id,
        organisation_id=row.organisation_id,
        scope=cast(BudgetScope, row.scope),
        scope_id=row.scope_id,
        window=cast(BudgetWindow, row.window_name),
        nano=row.nano,
        currency=row.currency,
        hard=row.hard,
        rule_id=row.rule_id,
    )


def _entry(action: str, actor: Actor, budget: Budget, at: datetime) -> Entry:
    names = ("scope", "scope_id", "window", "currency", "hard")
    detail: dict[str, str | int | bool | None] = {name: getattr(budget, name) for name in names}
    detail["nano"] = str(budget.nano)
    resource = f"budget:{budget.id}"
    return Entry(action=f"budget.{action}", actor=actor, resource=resource, outcome="done", at=at, detail=detail)


def _alert_entry(alert: Alert) -> Entry:
    detail: dict[str, str | int | bool | None] = {
        "percent": alert.percent,
        "period_start": alert.period_start.isoformat(),
        "spent_nano": str(alert.spent_nano),
        "budget_nano": str(alert.budget_nano),
    }
    return Entry(
        action="budget.reached",
        actor=replace(SYSTEM, organisation_id=alert.organisation_id),
        resource=f"budget:{alert.budget_id}",
        outcome="done",
        at=alert.at,
        detail=detail,
    )
