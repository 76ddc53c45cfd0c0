"""`galerne plans`: which plans an organisation may have, and what each of their versions costs and contains."""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import ValidationError
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.billing import list_plans
from galerne.billing.schemas import plan_fields
from galerne.billing.subscriptions import PlanIn, PlanVersion, list_plan_versions, plan_version_fields, publish_plan
from galerne.governance import Actor
from galerne.kernel import BadRequest, SystemClock

app = typer.Typer(
    help="List and publish the plans that an organisation may have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def plans() -> None:
    """List and publish the plans that an organisation may have."""


@app.command("list")
def list_(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List plans: their share where requests wait, and the best tier that each may ask for."""
    rows = [plan_fields(plan) for plan in in_transaction(data, list_plans)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("plan", Column("weight", justify="right"), "tier", "what it is for", box=None)
    for row in rows:
        table.add_row(*(str(row[name]) for name in ("id", "weight", "tier", "description")))
    print_table(table)


@app.command()
def versions(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List what each version of each plan costs and contains."""
    rows = [plan_version_fields(each) for each in in_transaction(data, list_plan_versions)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("plan", Column("version", justify="right"), "fees", "per seat", "trial", "windows", box=None)
    for row in rows:
        table.add_row(str(row["plan"]), str(row["version"]), *_shown(row))
    print_table(table)


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="JSON as `POST /v1/admin/plans` takes it.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Publish a plan's next version from a file; who has an earlier version keeps it."""
    try:
        body = PlanIn.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequest(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    plan, offer = body.plan_and_offer()

    async def work(session: AsyncSession, operator: Actor) -> PlanVersion:
        return await publish_plan(session, operator, plan, offer, SystemClock())

    row = plan_version_fields(as_operator(data, work))
    typer.echo(json.dumps(row) if as_json else f"published {row['plan']}, version {row['version']}")


def _shown(row: dict[str, object]) -> tuple[str, ...]:
    fees = cast(list[dict[str, Any]], row["fees"])
    windows = cast(list[dict[str, Any]], row["windows"])
    prices = ", ".join(f"{fee['amount']} {fee['currency']}/{fee['interval']}" for fee in fees)
    limits = ", ".join(f"{each['amount']:,} {each['quantity']}/{each['window']}" for each in windows)
    return prices or "-", "yes" if row["per_seat"] else "no", f"{row['trial_days']} d", limits or "-"
