"""`galerne credits`: give prepaid credit, see what accounts hold, check that the books add up."""

import json
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, print_table, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import Database, GalerneError, Ids, SystemClock
from galerne.ledger import Grant, accounts_of, all_accounts, amount_of, amount_text, balance_fields, check_books
from galerne.ledger import grant_credit as give

app = typer.Typer(
    help="Grant and list credit, check the books.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


class BooksBroken(GalerneError):
    """The ledger's books do not add up."""

    code = "books_broken"


@app.command()
def grant(
    organisation: Annotated[str, typer.Argument(help="The organisation's id.")],
    amount: Annotated[str, typer.Argument(help="How much, at most 9 digits after the point: 250.00")],
    currency: Annotated[str, typer.Option(help="Three letters, such as EUR.")],
    reason: Annotated[str, typer.Option(help="What it is for; kept with the transfer.")],
    grant_id: Annotated[
        str | None, typer.Option("--id", help="Its name, such as a payment's reference: the same id is granted once.")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give an organisation prepaid credit, which its requests are paid from."""
    new = Grant(id=grant_id or Ids().new(), amount_nano=amount_of(amount), currency=currency, reason=reason)

    async def work(session: AsyncSession, actor: Actor) -> tuple[bool, list[dict[str, object]]]:
        given = await give(session, actor, new, SystemClock())
        return given, [balance_fields(each) for each in await accounts_of(session, actor.organisation_id)]

    given, accounts = as_operator(data, work, organisation)
    shown = amount_text(new.amount_nano)
    if as_json:
        fields = {"object": "grant", "id": new.id, "amount": shown, "currency": currency, "granted": given}
        typer.echo(json.dumps({**fields, "accounts": accounts}))
    else:
        typer.echo(f"{'granted' if given else 'granted before'}: {shown} {currency} (id {new.id})")


@app.command("list")
def list_(organisation: OrganisationOption = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """List accounts with what they hold; with --organisation only one customer's. That it was looked at is recorded."""

    async def work(session: AsyncSession, actor: Actor) -> list[dict[str, object]]:
        everybody = organisation is None
        found = await (all_accounts(session) if everybody else accounts_of(session, actor.organisation_id))
        resource = "accounts" if everybody else f"accounts:{actor.organisation_id}"
        now = SystemClock().now()
        await append(session, [Entry(action="credit.listed", actor=actor, resource=resource, outcome="done", at=now)])
        return [balance_fields(each) for each in found]

    rows = as_operator(data, work, organisation)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    amounts = [Column(name, justify="right") for name in ("balance", "held", "available")]
    table = Table("account", "currency", *amounts, box=None)
    for row in rows:
        table.add_row(*(str(row[name] or "-") for name in ("id", "currency", "balance", "held", "available")))
    print_table(table)


@app.command()
def check(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Derive every balance and hold from the transfers once more; exit 1 naming what differs."""

    async def work(database: Database) -> list[str]:
        async with database.reading() as session:
            return await check_books(session)

    problems = with_database(data, work)
    if as_json:
        typer.echo(json.dumps({"object": "books", "sound": not problems, "problems": problems}))
    elif not problems:
        typer.echo("sound: every balance is what its transfers say")
    if problems:
        raise BooksBroken("The books do not add up: " + "; ".join(problems))
