"""`galerne prices`: what a model's tokens cost, for the operator to set and to see."""

import json
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.billing import NewRates, list_rates, nano_of, price_fields, set_rates
from galerne.governance import Actor
from galerne.kernel import Ids, SystemClock

app = typer.Typer(
    help="Set and list what tokens cost.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.command("set")
def set_(
    model: Annotated[str, typer.Argument(help="Id or alias of the model.")],
    input_: Annotated[str, typer.Option("--input", help="Price of 1,000,000 prompt tokens that are computed.")],
    cached: Annotated[str, typer.Option(help="Price of 1,000,000 prompt tokens that were in a cache.")],
    output: Annotated[str, typer.Option(help="Price of 1,000,000 tokens of answers.")],
    currency: Annotated[str, typer.Option(help="Three letters, such as EUR.")],
    start: Annotated[
        str | None, typer.Option("--from", help="From when: 30d, 12h, 15m, or an ISO time. Default: now.")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Set what a model's tokens cost, from now or a time to come. Prices have at most 9 digits after the point."""
    clock = SystemClock()
    new = NewRates(
        currency=currency,
        input_nano_per_million=nano_of(input_, param="input"),
        cached_nano_per_million=nano_of(cached, param="cached"),
        output_nano_per_million=nano_of(output, param="output"),
        effective_from=None if start is None else moment("--from", start, clock.now(), past=False),
    )

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return price_fields(await set_rates(session, operator, model, new, Ids(), clock))

    row = as_operator(data, work)
    typer.echo(json.dumps(row, default=plain) if as_json else f"{row['model']}: {row['currency']} {_shown(row)}")


@app.command("list")
def list_(
    at: Annotated[str | None, typer.Option(help="What counts then: 30d, 12h, 15m from now, or an ISO time.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what 1,000,000 tokens of each model cost."""
    now = SystemClock().now()
    when = now if at is None else moment("--at", at, now, past=False)

    async def work(session: AsyncSession) -> list[dict[str, object]]:
        return [price_fields(rates) for rates in await list_rates(session, when)]

    rows = in_transaction(data, work)
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    prices = [Column(name, justify="right") for name in ("input", "cached", "output")]
    table = Table("model", "currency", *prices, "since", box=None)
    for row in rows:
        table.add_row(
            *(plain(row[name]) for name in ("model", "currency", "input", "cached", "output", "effective_from"))
        )
    print_table(table)


def _shown(row: dict[str, object]) -> str:
    prices = ", ".join(f"{name} {row[name]}" for name in ("input", "cached", "output"))
    return f"{prices} for 1,000,000 tokens from {plain(row['effective_from'])}"
