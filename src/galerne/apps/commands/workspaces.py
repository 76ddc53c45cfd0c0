"""`galerne workspaces`: make, list and change the workspaces of an organisation."""

import json
from typing import Annotated, Literal

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import (
    AnywhereOption,
    OrganisationOption,
    ZonesOption,
    changed_zones,
    named_zones,
    plain,
    shown_zones,
)
from galerne.governance import Actor
from galerne.identity import KEEP, NewWorkspace, WorkspaceChange, change_workspace, create_workspace, list_workspaces
from galerne.identity.schemas import workspace_fields
from galerne.kernel import Ids, SystemClock

app = typer.Typer(
    help="Create, list and change workspaces.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

TraceContent = Literal["yes", "no"]
_TRACE_HELP = "Whether prompts and answers may be put into traces."


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    zones: ZonesOption = None,
    trace_content: Annotated[TraceContent, typer.Option(help=_TRACE_HELP)] = "no",
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Create a workspace. Its zones may only narrow those of its organisation."""
    new = NewWorkspace(name=name, zones=named_zones(zones), trace_content=trace_content == "yes")

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return workspace_fields(await create_workspace(session, operator, new, Ids(), SystemClock()))

    made = as_operator(data, work, organisation)
    typer.echo(json.dumps(made, default=plain) if as_json else f"created {made['name']} (id {made['id']})")


@app.command("list")
def list_(organisation: OrganisationOption = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """List an organisation's workspaces, by name."""

    async def work(session: AsyncSession, operator: Actor) -> list[dict[str, object]]:
        return [workspace_fields(row) for row in await list_workspaces(session, operator, limit=10_000)]

    rows = as_operator(data, work, organisation)
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    table = Table("id", "name", "zones", "traces hold text", box=None)
    for row in rows:
        table.add_row(str(row["id"]), str(row["name"]), shown_zones(row["zones"]), _yes(row["trace_content"]))
    print_table(table)


@app.command("set")
def set_(
    workspace: Annotated[str, typer.Argument(help="The workspace's id.")],
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    zones: ZonesOption = None,
    anywhere: AnywhereOption = False,
    trace_content: Annotated[TraceContent | None, typer.Option(help=_TRACE_HELP)] = None,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Change a workspace's name, zones or tracing; what is not named stays."""
    change = WorkspaceChange(
        name=KEEP if name is None else name,
        zones=changed_zones(zones, anywhere),
        trace_content=KEEP if trace_content is None else trace_content == "yes",
    )

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return workspace_fields(await change_workspace(session, operator, workspace, change, SystemClock()))

    row = as_operator(data, work, organisation)
    shown = f"{row['name']}: zones {shown_zones(row['zones'])}, traces hold text: {_yes(row['trace_content'])}"
    typer.echo(json.dumps(row, default=plain) if as_json else shown)


def _yes(value: object) -> str:
    return "yes" if value else "no"
