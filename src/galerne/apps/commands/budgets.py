"""`galerne budgets`: set, list and remove budgets, give alerts, show costs to cost centres."""

import json
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption, plain
from galerne.billing import Period, nano_of, rate_batch
from galerne.billing.budgets import (
    Alert,
    BudgetScope,
    BudgetWindow,
    NewBudget,
    alert_fields,
    budget_fields,
    budget_use_fields,
    cost_share_fields,
    give_alerts,
    list_alerts,
    list_budgets,
    organisations_with_budgets,
    remove_budget,
    set_budget,
    set_cost_centre,
    showback,
)
from galerne.governance import Actor
from galerne.kernel import Ids, SystemClock

app = typer.Typer(
    help="Set budgets, give alerts, show costs to cost centres.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("set")
def set_(
    scope: Annotated[BudgetScope, typer.Argument(help="Whose spending counts.")],
    scope_id: Annotated[str, typer.Argument(help="Id of the key, workspace or organisation, or the cost centre.")],
    amount: Annotated[str, typer.Argument(help="How much, such as 250.00")],
    currency: Annotated[str, typer.Option(help="Three letters, such as EUR.")],
    window: Annotated[BudgetWindow, typer.Option(help="In which time, by UTC.")] = "month",
    hard: Annotated[bool, typer.Option(help="Refuse requests beyond it.")] = False,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Set a budget, or change the one for the same subject, window and currency."""
    nano = nano_of(amount, param="amount")
    new = NewBudget(scope=scope, scope_id=scope_id, window=window, nano=nano, currency=currency, hard=hard)

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return budget_fields(await set_budget(session, operator, new, Ids(), SystemClock()))

    row = as_operator(data, work, organisation)
    typer.echo(
        json.dumps(row) if as_json else f"{scope} {scope_id}: {row['amount']} {currency} a {window} ({row['id']})"
    )


@app.command("list")
def list_(organisation: OrganisationOption = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """List an organisation's budgets with what has been spent of each."""

    async def work(session: AsyncSession, operator: Actor) -> list[dict[str, object]]:
        found = await list_budgets(session, operator.organisation_id, SystemClock().now())
        return [budget_use_fields(each) for each in found]

    _print(as_operator(data, work, organisation), ("id", "scope", "scope_id", "window", "amount", "spent"), as_json)


@app.command()
def remove(
    budget: Annotated[str, typer.Argument(help="The budget's id.")],
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove a budget, and the limit that made it hard."""

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        return budget_fields(await remove_budget(session, operator, budget, SystemClock()))

    row = as_operator(data, work, organisation)
    typer.echo(json.dumps(row) if as_json else f"removed {row['id']}")


@app.command()
def check(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Rate what is new, then give the alerts that are due; safe to run at any time, anywhere."""

    async def rate(session: AsyncSession) -> bool:
        return (await rate_batch(session, SystemClock())).more

    async def work(session: AsyncSession) -> list[Alert]:
        organisations = await organisations_with_budgets(session)
        return [alert for each in organisations for alert in await give_alerts(session, each, SystemClock())]

    while in_transaction(data, rate):
        pass
    _print([alert_fields(each) for each in in_transaction(data, work)], _ALERT_COLUMNS, as_json)


@app.command()
def alerts(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List the alerts that were given, newest first."""

    async def work(session: AsyncSession) -> list[Alert]:
        return await list_alerts(session, None)

    _print([alert_fields(each) for each in in_transaction(data, work)], _ALERT_COLUMNS, as_json)


@app.command("cost-centre")
def cost_centre(
    scope: Annotated[BudgetScope, typer.Argument(help="key or workspace.")],
    scope_id: Annotated[str, typer.Argument(help="Its id.")],
    name: Annotated[str | None, typer.Argument(help="The cost centre; none if left out.")] = None,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show the use of a key or a workspace to a cost centre."""

    async def work(session: AsyncSession, operator: Actor) -> None:
        await set_cost_centre(session, operator, (scope, scope_id), name, SystemClock())

    as_operator(data, work, organisation)
    row = {"object": "cost_centre", "scope": scope, "scope_id": scope_id, "cost_centre": name}
    typer.echo(json.dumps(row) if as_json else f"{scope} {scope_id}: {name or 'no cost centre'}")


@app.command("showback")
def showback_(
    since: Annotated[str, typer.Option(help="From: an ISO time, or 30d before now.")] = "30d",
    until: Annotated[str, typer.Option(help="Until before: an ISO time, or 1d before now.")] = "0s",
    currency: Annotated[str, typer.Option(help="Three letters, such as EUR.")] = "EUR",
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show what an organisation's rated use was worth, by cost centre."""
    now = SystemClock().now()
    period = Period(moment("--since", since, now, past=True), moment("--until", until, now, past=True))

    async def work(session: AsyncSession, operator: Actor) -> list[dict[str, object]]:
        found = await showback(session, operator.organisation_id, currency, period)
        return [cost_share_fields(each) for each in found]

    _print(as_operator(data, work, organisation), ("cost_centre", "quantity", "cost"), as_json)


_ALERT_COLUMNS = ("at", "budget_id", "percent", "spent", "amount", "period_start")


def _print(rows: list[dict[str, object]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    table = Table(*(Column(name.replace("_", " ")) for name in columns), box=None)
    for row in rows:
        table.add_row(*(plain(row[name] or "-") for name in columns))
    print_table(table)
