"""`galerne worker`: does what time brings about by itself, says how that stands, or does it now."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from galerne.apps.commands.opened import print_table, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.apps.duties import DUTIES
from galerne.apps.worker import Worker
from galerne.apps.worker_process import serve_duties
from galerne.kernel import Database, GalerneError, Settings, SystemClock, configure_logs
from galerne.kernel.duties import DutyState, duty_states

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class DutyFailed(GalerneError):
    """A duty could not be done."""

    code = "duty_failed"


@app.callback(invoke_without_command=True)
def worker(
    context: typer.Context,
    data: DataFolder = None,
    socket: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Do what time brings about by itself, until a signal says stop: rating, alerts, renewals, expiry of credit.

    `galerne serve` runs one by itself. Any number may run on one database: each duty is one's at a time.
    """
    if context.invoked_subcommand is not None:
        return
    settings = Settings().with_data(data)
    configure_logs(settings.log_level)
    asyncio.run(serve_duties(settings, socket))


@app.command()
def status(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show each duty: when it was done last and how that went, when it is due, who is at it."""

    async def work(database: Database) -> list[DutyState]:
        async with database.reading() as session:
            return await duty_states(session)

    _print(with_database(data, work), as_json)


@app.command()
def run(
    duties: Annotated[list[str] | None, typer.Argument(help="Which; all if left out.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Do duties now, due or not, and show how that went; one that a worker is at is left to it. For cron."""
    known = [duty.name for duty in DUTIES]
    unknown = sorted(set(duties or []) - set(known))
    if unknown:
        raise typer.BadParameter(f"there is no duty '{unknown[0]}'; there are {', '.join(known)}")

    async def work(database: Database) -> list[DutyState]:
        return await Worker(database, SystemClock(), Settings().with_data(data)).run_now(duties or [])

    found = with_database(data, work)
    _print(found, as_json)
    broken = [state for state in found if state.problem]
    if broken:
        raise DutyFailed(f"{broken[0].name}: {broken[0].problem}")


def duty_fields(state: DutyState) -> dict[str, object]:
    """A duty as the command line shows it."""
    about = {duty.name: duty.about for duty in DUTIES}.get(state.name, "")
    names = ("due_at", "holder", "lease_until", "begun_at", "ended_at", "succeeded_at", "done", "took_ms", "failures")
    own = {name: getattr(state, name) for name in names}
    return {"object": "duty", "name": state.name, "about": about, **own, "problem": state.problem}


def _print(states: list[DutyState], as_json: bool) -> None:
    rows = [duty_fields(state) for state in states]
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    columns = ("name", "ended_at", "took_ms", "done", "due_at", "holder", "failures", "problem")
    table = Table(*(name.replace("_", " ") for name in columns), box=None)
    for row in rows:
        table.add_row(*("-" if row[name] is None else plain(row[name]) for name in columns))
    print_table(table)
