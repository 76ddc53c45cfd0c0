"""`galerne webhooks`: where an organisation's webhooks go, what signs them, how they stand, and sending one again."""

import json
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption, plain
from galerne.governance import Actor
from galerne.kernel import Ids, Settings, SystemClock
from galerne.kernel.sealing import open_sealer
from galerne.notices import (
    DeliveryState,
    NewEndpoint,
    add_endpoint,
    list_deliveries,
    list_endpoints,
    remove_endpoint,
    rotate_secret,
)
from galerne.notices import resend as send_again
from galerne.notices.schemas import delivery_fields, endpoint_fields

app = typer.Typer(
    help="Say where webhooks go, change their secrets, see how they stand, send one again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where they go: https://…")],
    topic: Annotated[list[str] | None, typer.Option(help="Of what. Repeat for several; all if left out.")] = None,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Have an organisation's webhooks sent there, and print the secret that signs them, this once."""
    settings = Settings().with_data(data)
    new = NewEndpoint(url, tuple(topic or ()), settings.webhooks_inside)

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        sealer = open_sealer(settings)
        endpoint, secret = await add_endpoint(session, operator, new, sealer, Ids(), SystemClock())
        return {**endpoint_fields(endpoint), "secret": secret}

    row = as_operator(data, work, organisation)
    typer.echo(json.dumps(row, default=plain) if as_json else f"{row['id']}: {url}\nsecret: {row['secret']}")


@app.command()
def rotate(
    endpoint: Annotated[str, typer.Argument(help="The endpoint's id.")],
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=168, help="For how long older secrets still sign too; 0 if they are known.")
    ] = 24,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give an endpoint a new secret, and print it, this once; for some time the old one signs beside it."""
    overlap = timedelta(hours=overlap_hours)

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        seal = (open_sealer(Settings().with_data(data)), Ids())
        changed, secret, until = await rotate_secret(session, operator, endpoint, overlap, seal, SystemClock())
        return {**endpoint_fields(changed), "secret": secret, "old_secrets_until": until}

    row = as_operator(data, work, organisation)
    told = f"{row['id']}: older secrets sign until {plain(row['old_secrets_until'])}\nsecret: {row['secret']}"
    typer.echo(json.dumps(row, default=plain) if as_json else told)


@app.command("list")
def list_(organisation: OrganisationOption = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """List where webhooks go."""

    async def work(session: AsyncSession) -> list[dict[str, object]]:
        return [endpoint_fields(each) for each in await list_endpoints(session, organisation)]

    _print(in_transaction(data, work), ("id", "url", "topics", "created_at"), as_json)


@app.command()
def remove(
    endpoint: Annotated[str, typer.Argument(help="The endpoint's id.")],
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Send no more webhooks there."""

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return endpoint_fields(await remove_endpoint(session, operator, endpoint, SystemClock()))

    row = as_operator(data, work, organisation)
    typer.echo(json.dumps(row, default=plain) if as_json else f"removed {row['id']}")


@app.command()
def deliveries(
    state: Annotated[DeliveryState | None, typer.Option(help="Only these; dead: those that nobody took.")] = None,
    organisation: OrganisationOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first: how often each was tried, what came of it, when it is tried again."""

    async def work(session: AsyncSession) -> list[dict[str, object]]:
        return [delivery_fields(each) for each in await list_deliveries(session, organisation, state, limit)]

    columns = ("id", "endpoint_id", "topic", "state", "attempts", "status", "problem", "next_at")
    _print(in_transaction(data, work), columns, as_json)


@app.command()
def resend(
    delivery: Annotated[str, typer.Argument(help="The delivery's id, its webhook-id.")],
    endpoint: Annotated[str, typer.Argument(help="The endpoint's id.")],
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Send it again under the same id, also if it is dead or was delivered."""

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return delivery_fields(await send_again(session, operator, delivery, endpoint, SystemClock()))

    row = as_operator(data, work, organisation)
    typer.echo(json.dumps(row, default=plain) if as_json else f"{row['id']}: {row['state']}")


def _print(rows: list[dict[str, object]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    table = Table(*(name.replace("_", " ") for name in columns), box=None)
    for row in rows:
        table.add_row(*("-" if row[name] is None else plain(row[name]) for name in columns))
    print_table(table)
