"""How charges are asked for and listed, whatever made them due."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Column, Table

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import print_table
from galerne.apps.commands.tenants import plain
from galerne.billing import Charge
from galerne.billing.subscriptions import charge_fields
from galerne.kernel import SystemClock

DueBefore = Annotated[str | None, typer.Option(help="Due before: an ISO time, or 30d from now. Default: now.")]


def due_before(until: str | None) -> datetime:
    """The time that `--until` means."""
    now = SystemClock().now()
    return now if until is None else moment("--until", until, now, past=False)


def print_charges(charges: Sequence[Charge], as_json: bool) -> None:
    """Print charges as a table, or as JSON."""
    rows = [charge_fields(charge) for charge in charges]
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    table = Table("due (UTC)", "kind", "what", Column("amount", justify="right"), "currency", box=None)
    for row in rows:
        shown = (row["kind"], row["description"], row["amount"], row["currency"])
        table.add_row(plain(row["due_at"])[:16], *map(str, shown))
    print_table(table)
