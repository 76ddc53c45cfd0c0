"""`galerne prices`: what a model's tokens cost, for the operator to set and to see."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.billing import (
    NewRates,
    assign_price_list,
    change_prices,
    create_price_list,
    list_price_lists,
    list_rates,
    nano_of,
    quote_now,
    set_rates,
)
from galerne.billing.prices.schemas import PriceChangeIn, QuoteIn, quote_fields
from galerne.billing.schemas import price_fields
from galerne.governance import Actor
from galerne.identity import find_organisation
from galerne.kernel import BadRequest, Ids, SystemClock

app = typer.Typer(
    help="Set, list and quote what tokens cost.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.command("set")
def set_(
    model: Annotated[str, typer.Argument(help="Id or alias of the model.")],
    input_: Annotated[str, typer.Option("--input", help="Price of 1,000,000 prompt tokens that are computed.")],
    cached: Annotated[str, typer.Option(help="Price of 1,000,000 prompt tokens that were in a cache.")],
    output: Annotated[str, typer.Option(help="Price of 1,000,000 tokens of answers.")],
    currency: Annotated[str, typer.Option(help="Three letters, such as EUR.")],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="From when: 30d, 12h, 15m, or an ISO time. Default: in 10 seconds, when all gateways know it.",
        ),
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Set what a model's tokens cost, in ten seconds or later. Prices have at most 9 digits after the point."""
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


@app.command("quote")
def quote(
    model: Annotated[str, typer.Argument(help="Id or alias of the model.")],
    input_: Annotated[int, typer.Option("--input", help="Prompt tokens, at most.")] = 0,
    output: Annotated[int, typer.Option(help="Tokens of answers, at most.")] = 0,
    cached: Annotated[int, typer.Option(help="Of the prompt's tokens, those expected in a cache.")] = 0,
    tier: Annotated[str, typer.Option(help="standard, priority, flex or batch.")] = "standard",
    zone: Annotated[str, typer.Option(help="Where it is answered.")] = "",
    organisation: Annotated[str | None, typer.Option(help="Whose prices; default: the first administrator's.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show what a request will cost, line by line: what is expected, and at most."""
    fields = {"input_tokens": input_, "output_tokens": output, "cached_tokens": cached, "service_tier": tier}
    try:
        body = QuoteIn.model_validate({"model": model, "zone": zone, **fields})
    except ValidationError as error:
        raise BadRequest(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None

    async def work(session: AsyncSession, operator: Actor) -> dict[str, Any]:
        found = await quote_now(session, operator.organisation_id, body.ask(), SystemClock().now())
        return quote_fields(model, found)

    row = as_operator(data, work, organisation)
    if as_json:
        typer.echo(json.dumps(row))
        return
    table = Table("class", "quantity", "price", "for", "amount", box=None)
    for line in row["lines"]:
        table.add_row(*(str(line[name]) for name in ("token_class", "quantity", "price", "per", "amount")))
    print_table(table)
    typer.echo(f"expected {row['expected']} {row['currency']}, at most {row['most']} {row['currency']}")


@app.command("change")
def change(
    file: Annotated[Path, typer.Argument(help="JSON as `POST /v1/admin/prices/changes` takes it.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write rates and modifiers of one price list together: by tier, zone, batch and volume."""
    try:
        new = PriceChangeIn.model_validate_json(file.read_bytes()).change()
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequest(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    async def work(session: AsyncSession, operator: Actor) -> int:
        return (await change_prices(session, operator, new, Ids(), SystemClock())).number

    number = as_operator(data, work)
    typer.echo(json.dumps({"version": number}) if as_json else f"version {number} of the price book")


@app.command("give-list")
def give_list(
    list_: Annotated[str, typer.Argument(metavar="LIST", help="Id of the price list; made if there is none.")],
    plan: Annotated[str | None, typer.Option(help="To whoever has this plan.")] = None,
    organisation: Annotated[str | None, typer.Option(help="To this organisation, as its contract says.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give a plan or an organisation a price list; what that leaves out costs what it did."""
    if (plan is None) == (organisation is None):
        raise BadRequest("Name a --plan or an --organisation.")
    clock = SystemClock()

    async def work(session: AsyncSession, operator: Actor) -> None:
        if list_ not in [row[0] for row in await list_price_lists(session)]:
            await create_price_list(session, operator, list_, list_, clock)
        if plan is not None:
            await assign_price_list(session, operator, ("plan", plan), list_, clock)
        else:
            found = await find_organisation(session, organisation or "")
            await assign_price_list(session, operator, ("organisation", found.id), list_, clock)

    as_operator(data, work)
    row = {"list": list_, "plan": plan, "organisation": organisation}
    typer.echo(json.dumps(row) if as_json else f"{plan or organisation} has the price list {list_}")


def _shown(row: dict[str, object]) -> str:
    prices = ", ".join(f"{name} {row[name]}" for name in ("input", "cached", "output"))
    return f"{prices} for 1,000,000 tokens from {plain(row['effective_from'])}"
