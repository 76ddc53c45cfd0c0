"""`galerne limits`: what keys, workspaces, organisations, plans and models may use, for the operator to set and see."""

import json
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption, plain
from galerne.billing import find_plan
from galerne.governance import Actor
from galerne.identity import find_organisation
from galerne.kernel import SystemClock
from galerne.metering import (
    LimitRule,
    NewLimit,
    Quantity,
    Scope,
    Window,
    list_every_limit,
    remove_operator_limit,
    set_limit,
    set_operator_limit,
)
from galerne.metering.limit_schemas import limit_fields, limit_use_fields
from galerne.models import find_model

app = typer.Typer(
    help="Set, list and remove limits.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.command("set")
def set_(
    scope: Annotated[Scope, typer.Argument(help="Whom it is for; a plan's counts for each organisation on its own.")],
    scope_id: Annotated[str, typer.Argument(help="Id of the key, workspace, organisation, plan or model.")],
    quantity: Annotated[Quantity, typer.Argument(help="What is counted; nano are billionths of --currency.")],
    window: Annotated[Window, typer.Argument(help="In which time; none for concurrent requests.")],
    amount: Annotated[int, typer.Argument(help="How much.")],
    model: Annotated[str | None, typer.Option(help="Count this model only. Default: all.")] = None,
    currency: Annotated[str | None, typer.Option(help="Three letters, such as EUR, for nano.")] = None,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Set a limit, or change the amount of the one that is there; it counts at once.

    The operator's limits on an organisation, a plan or a model can be taken away by nobody else. One on a key or a
    workspace is its organisation's own.
    """
    new = NewLimit(
        scope=scope,
        scope_id=scope_id,
        quantity=quantity,
        window=window,
        amount=amount,
        model=model,
        currency=currency,
    )

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return limit_fields(await _set(session, operator, new))

    row = as_operator(data, work, organisation)
    typer.echo(json.dumps(row, default=plain) if as_json else f"{_shown(row)}\n(id {row['id']})")


@app.command("list")
def list_(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List every limit with its use; of a plan's, the organisation that has used most."""

    async def work(session: AsyncSession) -> list[dict[str, object]]:
        return [limit_use_fields(use) for use in await list_every_limit(session, SystemClock().now())]

    rows = in_transaction(data, work)
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    numbers = [Column(name, justify="right") for name in ("amount", "used")]
    table = Table("id", "limit", *numbers, "used by", "resets (UTC)", "set by", box=None)
    for row in rows:
        at = row["resets_at"]
        resets = at.strftime("%Y-%m-%d %H:%M") if isinstance(at, datetime) else "-"
        counts = (f"{row['amount']:,}", f"{row['used']:,}")
        table.add_row(str(row["id"]), _name(row), *counts, str(row["subject"]), resets, str(row["set_by"]))
    print_table(table)


@app.command()
def remove(
    limit_id: Annotated[str, typer.Argument(help="The limit's id.")], data: DataFolder = None, as_json: AsJson = False
) -> None:
    """Remove a limit, whoever set it, and what was counted of it."""

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return limit_fields(await remove_operator_limit(session, operator, limit_id, SystemClock()))

    row = as_operator(data, work)
    typer.echo(json.dumps(row, default=plain) if as_json else f"removed {_shown(row)}")


async def _set(session: AsyncSession, operator: Actor, new: NewLimit) -> LimitRule:
    clock = SystemClock()
    if new.model is not None:
        new = replace(new, model=(await find_model(session, new.model)).id)
    if new.scope in ("key", "workspace"):
        return await set_limit(session, operator, new, clock)
    if new.scope == "organisation":
        await find_organisation(session, new.scope_id)
    elif new.scope == "plan":
        await find_plan(session, new.scope_id)
    else:
        new = replace(new, scope_id=(await find_model(session, new.scope_id)).id)
    return await set_operator_limit(session, operator, new, clock)


def _name(row: dict[str, object]) -> str:
    model = f" of {row['model']}" if row["model"] else ""
    unit = f"nano-{row['currency']}" if row["currency"] else row["quantity"]
    each = "" if row["window"] == "none" else f" per {row['window']}"
    return f"{row['scope']} {row['scope_id']}: {unit}{model}{each}"


def _shown(row: dict[str, object]) -> str:
    return f"{_name(row)}: {row['amount']:,}"
