"""`galerne plans`: which plans an organisation may have."""

import json

import typer
from rich.table import Column, Table

from galerne.apps.commands.opened import in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.billing import list_plans, plan_fields

app = typer.Typer(
    help="List the plans that an organisation may have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def plans() -> None:
    """List the plans that an organisation may have."""


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
