"""`galerne organisations`: the operator's commands to make, list, show and change organisations."""

import json
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import (
    AnywhereOption,
    ZonesOption,
    changed_zones,
    named_zones,
    plain,
    shown_zones,
)
from galerne.billing import find_plan
from galerne.governance import Actor
from galerne.identity import (
    DEFAULT_PLAN,
    KEEP,
    NewOrganisation,
    OrganisationChange,
    change_organisation,
    create_organisation,
    find_organisation,
    list_organisations,
)
from galerne.identity.schemas import organisation_fields
from galerne.kernel import Ids, SystemClock

app = typer.Typer(
    help="Create, list, show and change organisations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

OrganisationId = Annotated[str, typer.Argument(help="The organisation's id.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name.")],
    plan: Annotated[str, typer.Option(help="Its plan; `galerne plans list` shows them.")] = DEFAULT_PLAN,
    zones: ZonesOption = None,
    administrator: Annotated[str, typer.Option(help="Name of its first administrator.")] = "administrator",
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Create an organisation with its first administrator, whose key is shown once."""
    new = NewOrganisation(name=name, plan=plan, zones=named_zones(zones), administrator=administrator)

    async def work(session: AsyncSession, _operator: Actor) -> dict[str, object]:
        await find_plan(session, plan)
        organisation, key = await create_organisation(session, new, Ids(), SystemClock())
        return {**organisation_fields(organisation), "key": key.secret, "key_id": key.row.id}

    made = as_operator(data, work)
    if as_json:
        typer.echo(json.dumps(made, default=plain))
    else:
        typer.echo(f"{made['key']}\n(organisation {made['id']}; shown this once, keep it safe)")


@app.command("list")
def list_(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List organisations, oldest first."""

    async def work(session: AsyncSession) -> list[dict[str, object]]:
        return [organisation_fields(row) for row in await list_organisations(session)]

    rows = in_transaction(data, work)
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    table = Table("id", "name", "plan", "zones", box=None)
    for row in rows:
        table.add_row(str(row["id"]), str(row["name"]), str(row["plan"]), shown_zones(row["zones"]))
    print_table(table)


@app.command()
def show(organisation: OrganisationId, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show one organisation."""

    async def work(session: AsyncSession) -> dict[str, object]:
        return organisation_fields(await find_organisation(session, organisation))

    _print(in_transaction(data, work), as_json)


@app.command("set")
def set_(
    organisation: OrganisationId,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    plan: Annotated[str | None, typer.Option(help="Its new plan.")] = None,
    zones: ZonesOption = None,
    anywhere: AnywhereOption = False,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Change an organisation's name, plan or zones; what is not named stays."""
    change = OrganisationChange(
        name=KEEP if name is None else name,
        plan=KEEP if plan is None else plan,
        zones=changed_zones(zones, anywhere),
    )

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        if plan is not None:
            await find_plan(session, plan)
        return organisation_fields(await change_organisation(session, operator, change, SystemClock()))

    _print(as_operator(data, work, organisation), as_json)


def _print(fields: dict[str, object], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields, default=plain))
        return
    for field, value in fields.items():
        typer.echo(f"{field:12} {shown_zones(value) if field == 'zones' else plain(value)}")
