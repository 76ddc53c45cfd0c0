"""`galerne keys`: create, list and revoke API keys of this installation."""

import json
from datetime import datetime
from typing import Annotated, cast

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import as_operator, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption, ZonesOption, named_zones, plain, shown_zones
from galerne.governance import Actor, Permission
from galerne.identity import Dialect, NewKey, create_key, list_keys, revoke_key
from galerne.identity.schemas import key_fields
from galerne.kernel import Ids, SystemClock

app = typer.Typer(
    help="Create, list and revoke API keys.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists.")],
    scope: Annotated[
        list[Permission] | None,
        typer.Option(help="What it may do; repeat for several. Default: inference:run and models:read."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends: 30d, 12h, 15m, 90s, or an ISO time. Default: never.")
    ] = None,
    zones: ZonesOption = None,
    workspace: Annotated[str | None, typer.Option(help="The workspace it belongs to. Default: none.")] = None,
    organisation: OrganisationOption = None,
    strict: Annotated[bool, typer.Option(help="Refuse request fields that the dialect does not define.")] = False,
    dialect: Annotated[Dialect | None, typer.Option(help="Answer this key's callers in one dialect only.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests per minute. Default: the installation's.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute. Default: the installation's.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key. It is shown once and stored only as a hash."""
    clock = SystemClock()
    new = NewKey(
        name=name,
        scopes=frozenset(scope or (Permission.INFERENCE_RUN, Permission.MODELS_READ)),
        expires_at=None if expires is None else moment("--expires", expires, clock.now(), past=False),
        zones=named_zones(zones),
        workspace_id=workspace,
        strict=strict,
        dialect=dialect,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
    )

    async def work(session: AsyncSession, actor: Actor) -> dict[str, object]:
        created = await create_key(session, actor, new, Ids(), clock)
        return {**key_fields(created.row), "key": created.secret}

    made = as_operator(data, work, organisation)
    typer.echo(
        json.dumps(made, default=plain)
        if as_json
        else f"{made['key']}\n(id {made['id']}; shown this once, keep it safe)"
    )


@app.command("list")
def list_(organisation: OrganisationOption = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """List API keys, newest first."""

    async def work(session: AsyncSession, actor: Actor) -> list[dict[str, object]]:
        return [key_fields(row) for row in await list_keys(session, actor, limit=1000)]

    rows = as_operator(data, work, organisation)
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    table = Table("id", "prefix", "name", "scopes", "zones", "created", "state", box=None)
    now = SystemClock().now()
    for row in rows:
        shown = (str(row["id"]), str(row["prefix"]), str(row["name"]), _joined(row["scopes"]))
        table.add_row(*shown, shown_zones(row["zones"]), _day(row["created_at"]), _state(row, now))
    print_table(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, or its visible prefix.")],
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Revoke an API key; running servers refuse it within two seconds."""

    async def work(session: AsyncSession, actor: Actor) -> dict[str, object]:
        return key_fields(await revoke_key(session, actor, key, SystemClock()))

    row = as_operator(data, work, organisation)
    typer.echo(json.dumps(row, default=plain) if as_json else f"revoked {row['prefix']}… ({row['name']})")


def _joined(value: object) -> str:
    return ", ".join(cast(list[str], value))


def _day(value: object) -> str:
    return value.strftime("%Y-%m-%d %H:%M") if isinstance(value, datetime) else "-"


def _state(row: dict[str, object], now: datetime) -> str:
    expires_at = row["expires_at"]
    if row["revoked_at"] is not None:
        return "revoked"
    if isinstance(expires_at, datetime):
        return "expired" if expires_at <= now else f"until {_day(expires_at)}"
    return "valid"
