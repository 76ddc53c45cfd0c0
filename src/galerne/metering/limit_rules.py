"""The rules that limit someone: read in one query, set, removed, and listed with what is taken. None of it commits."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor
from galerne.identity import find_key, find_organisation, find_workspace, list_keys
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Forbidden, NotFound, Query, Script, run_in_session, utc_time
from galerne.metering.limit_tables import LimitPoolRow, LimitRuleRow
from galerne.metering.limit_windows import Window
from galerne.metering.limits import LimitRule, LimitSubject, NewLimit, PoolSpec, check_rule, rule_id
from galerne.metering.pool_laws import EMPTY, PoolState, left, resets_at_ms, rolled, used
from galerne.metering.pools import forget_pools_script

MOST_RULES = 100
"""Rules on one subject; each is a pool that its requests draw from."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_KEYS = 1000
_SAME_NAMES = tuple(field.name for field in fields(LimitRule) if field.name != "window")
_COLUMNS = (*_SAME_NAMES, "window")
_RULES_FOR = f"""
SELECT {", ".join(_SAME_NAMES)}, window_name FROM limit_rules
WHERE scope = 'key' AND scope_id = :key OR scope = 'workspace' AND scope_id = :workspace
  OR scope = 'organisation' AND scope_id = :organisation OR scope = 'plan' AND scope_id = :plan
  OR scope = 'model' AND scope_id = :model
ORDER BY scope, scope_id, quantity, window_name, id"""  # noqa: S608  # names of ours
_SET = """
INSERT INTO limit_rules
  (id, organisation_id, workspace_id, scope, scope_id, model, quantity, window_name, currency, amount, created_at)
VALUES
  (:id, :organisation_id, :workspace_id, :scope, :scope_id, :model, :quantity, :window, :currency, :amount, :created_at)
ON CONFLICT (id) DO UPDATE SET amount = excluded.amount"""


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A rule and where `subject` stands with it: `used` is what gateways have taken, what they hold unspent among it.

    All but the rule are None for one whose use is other organisations' too; `resets_at` also where nobody knows.
    """

    rule: LimitRule
    subject: str | None
    used: int | None
    remaining: int | None
    resets_at: datetime | None


def rules_script(subject: LimitSubject, model_id: str) -> Script[tuple[LimitRule, ...]]:
    """Every rule that a request of `subject` for a model may meet, in one query."""
    whose = {
        "key": subject.key_id,
        "workspace": subject.workspace_id,
        "organisation": subject.organisation_id,
        "plan": subject.plan,
        "model": model_id,
    }
    rows = yield Query(_RULES_FOR, whose)
    return tuple(map(_read_rule, rows))


def _read_rule(row: Any) -> LimitRule:
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    values["created_at"] = utc_time(values["created_at"])
    return LimitRule(**values)


async def limit_ids(session: AsyncSession, wanted: Sequence[str]) -> set[str]:
    """Which of these are ids of rules that are set."""
    return set(await session.scalars(select(LimitRuleRow.id).where(LimitRuleRow.id.in_(wanted))))


async def set_limit(session: AsyncSession, actor: Actor, new: NewLimit, clock: Clock) -> LimitRule:
    """The rule, set for a key, a workspace or the whole of `actor`'s organisation; if it was there, its amount changes.

    Raises `BadRequest` for what is no rule, `NotFound` for a subject that is not `actor`'s, and `Forbidden` above it.
    """
    check_rule(new)
    if new.scope in ("plan", "model"):
        raise Forbidden("The limits of plans and models are the operator's: `galerne limits set`.", param="scope")
    if new.scope == "key":
        found = await find_key(session, actor, new.scope_id)
        if found.id != new.scope_id:
            raise BadRequest(f"Name the key by its id, {found.id}.", param="scope_id")
    elif new.scope == "workspace":
        await find_workspace(session, actor, new.scope_id)
    elif actor.workspace_id is not None:
        raise Forbidden("This key belongs to one workspace and sets limits within it only.", param="scope")
    elif new.scope_id != actor.organisation_id:
        raise NotFound("This is not your organisation's id.", param="scope_id")
    return await _set(session, actor, new, (actor.organisation_id, actor.workspace_id), clock)


async def set_operator_limit(session: AsyncSession, operator: Actor, new: NewLimit, clock: Clock) -> LimitRule:
    """The operator's rule, which nobody else can take away; whoever calls this has made sure of its subject."""
    check_rule(new)
    return await _set(session, operator, new, (None, None), clock)


async def remove_limit(session: AsyncSession, actor: Actor, rule_id: str, clock: Clock) -> LimitRule:
    """The rule, which is no more, nor what was counted of it. `NotFound` for one that `actor` did not set, nor stands
    above.
    """
    row = LimitRuleRow
    mine = [row.organisation_id == actor.organisation_id]
    if actor.workspace_id is not None:
        mine.append(row.workspace_id == actor.workspace_id)
    return await _remove(session, actor, await _rules(session, and_(row.id == rule_id, *mine)), clock)


async def remove_operator_limit(session: AsyncSession, operator: Actor, rule_id: str, clock: Clock) -> LimitRule:
    """Like `remove_limit`, for the operator, who may remove every rule."""
    return await _remove(session, operator, await _rules(session, LimitRuleRow.id == rule_id), clock)


async def list_limits(session: AsyncSession, actor: Actor, now: datetime) -> list[LimitUse]:
    """The rules that bear on `actor`'s organisation, or on its workspace if it is bound to one, with their use."""
    rules = await _rules(session, or_(*await _visible(session, actor)))
    own = [_spec(rule, actor.organisation_id if rule.scope == "plan" else rule.scope_id) for rule in rules]
    states = await _states(session, [pool.id for pool in own])
    return [
        LimitUse(rule, None, None, None, None) if rule.scope == "model" else _use(rule, pool, states, now)
        for rule, pool in zip(rules, own, strict=True)
    ]


async def list_every_limit(session: AsyncSession, now: datetime) -> list[LimitUse]:
    """Every rule, for the operator; of a plan's, the organisation that has used most."""
    rules = await _rules(session, LimitRuleRow.amount > 0)
    row = LimitPoolRow
    fullest_last = select(row.rule_id, row.id).where(row.rule_id.in_([rule.id for rule in rules])).order_by(row.taken)
    fullest = {name: pool_id.partition(":")[2] for name, pool_id in await session.execute(fullest_last)}
    pools = [_spec(rule, fullest.get(rule.id, "all" if rule.scope == "plan" else rule.scope_id)) for rule in rules]
    states = await _states(session, [pool.id for pool in pools])
    return [_use(rule, pool, states, now) for rule, pool in zip(rules, pools, strict=True)]


async def _set(
    session: AsyncSession, actor: Actor, new: NewLimit, owner: tuple[str | None, str | None], clock: Clock
) -> LimitRule:
    name = rule_id(new, *owner)
    row = LimitRuleRow
    before = await session.scalar(select(row.amount).where(row.id == name))
    same_subject = select(func.count()).where(row.scope == new.scope, row.scope_id == new.scope_id)
    if before is None and (await session.scalar(same_subject) or 0) >= MOST_RULES:
        raise BadRequest(f"There are {MOST_RULES} limits on this {new.scope} already; remove one.", param="scope_id")
    rule = LimitRule(
        **{field.name: getattr(new, field.name) for field in fields(NewLimit)},
        id=name,
        organisation_id=owner[0],
        workspace_id=owner[1],
        created_at=clock.now(),
    )
    await run_in_session(session, _set_script(rule))
    if before != rule.amount:
        was = {} if before is None else {"amount_was": str(before)}
        await append(session, [_entry("set", actor, rule, clock.now(), was)])
    return (await _rules(session, row.id == name))[0]


def _set_script(rule: LimitRule) -> Script[None]:
    yield Query(_SET, {field.name: getattr(rule, field.name) for field in fields(LimitRule)})


async def _remove(session: AsyncSession, actor: Actor, found: Sequence[LimitRule], clock: Clock) -> LimitRule:
    if not found:
        raise NotFound("There is no such limit among those that you may remove.", code="limit_not_found", param="id")
    await run_in_session(session, forget_pools_script(found[0].id))
    await run_in_session(session, _remove_script(found[0].id))
    await append(session, [_entry("removed", actor, found[0], clock.now(), {})])
    return found[0]


def _remove_script(name: str) -> Script[None]:
    yield Query("DELETE FROM limit_rules WHERE id = :id", {"id": name})


def _entry(action: str, actor: Actor, rule: LimitRule, at: datetime, more: dict[str, str]) -> Entry:
    names = ("scope", "scope_id", "model", "quantity", "window", "currency", "set_by")
    detail = {name: getattr(rule, name) for name in names} | {"amount": str(rule.amount)} | more
    return Entry(
        action=f"limit.{action}", actor=actor, resource=f"limit:{rule.id}", outcome="done", at=at, detail=detail
    )


async def _visible(session: AsyncSession, actor: Actor) -> list[ColumnElement[bool]]:
    row = LimitRuleRow
    if actor.workspace_id is None:
        plan = (await find_organisation(session, actor.organisation_id)).plan
        shared = or_(
            and_(row.scope == "organisation", row.scope_id == actor.organisation_id),
            and_(row.scope == "plan", row.scope_id == plan),
            row.scope == "model",
        )
        return [row.organisation_id == actor.organisation_id, and_(row.organisation_id.is_(None), shared)]
    keys = [key.id for key in await list_keys(session, actor, limit=_MOST_KEYS)]
    return [
        and_(row.scope == "workspace", row.scope_id == actor.workspace_id),
        and_(row.scope == "key", row.scope_id.in_(keys)),
    ]


async def _rules(session: AsyncSession, condition: ColumnElement[bool]) -> tuple[LimitRule, ...]:
    row = LimitRuleRow
    query = select(row).where(condition).order_by(row.scope, row.scope_id, row.quantity, row.window_name, row.id)
    return tuple(map(_rule, await session.scalars(query.execution_options(populate_existing=True))))


def _rule(row: LimitRuleRow) -> LimitRule:
    values: dict[str, Any] = {name: getattr(row, name) for name in _SAME_NAMES}
    return LimitRule(**values, window=cast(Window, row.window_name))


def _spec(rule: LimitRule, subject: str) -> PoolSpec:
    return PoolSpec(f"{rule.id}:{subject}", rule.quantity, rule.window, rule.amount, rule.scope, rule.currency)


async def _states(session: AsyncSession, pool_ids: Sequence[str]) -> dict[str, PoolState]:
    row = LimitPoolRow
    found = await session.execute(select(row.id, row.taken, row.since_ms).where(row.id.in_(pool_ids)))
    return {pool_id: PoolState(taken, since_ms) for pool_id, taken, since_ms in found}


def _use(rule: LimitRule, pool: PoolSpec, states: dict[str, PoolState], now: datetime) -> LimitUse:
    state = rolled(pool, states.get(pool.id, EMPTY), (now - _EPOCH) // timedelta(milliseconds=1))
    at_ms = resets_at_ms(pool, state) if state.taken else None
    resets_at = None if at_ms is None else _EPOCH + timedelta(milliseconds=at_ms)
    return LimitUse(rule, pool.id.partition(":")[2], used(pool, state), left(pool, state), resets_at)
