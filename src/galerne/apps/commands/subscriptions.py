"""`galerne subscriptions`: who has which plan; beginning, changing and ending it, and what it makes due."""

import json
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.charges import DueBefore, due_before, print_charges
from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption, plain
from galerne.billing import Charge, Interval
from galerne.billing.subscriptions import (
    Ask,
    Order,
    Subscription,
    SubscriptionWhat,
    WhenUnpaid,
    advance_due,
    list_subscriptions,
    organisation_charges,
    subscribe,
    subscription_fields,
)
from galerne.billing.subscriptions import ask as ask_for
from galerne.governance import Actor
from galerne.kernel import Ids, SystemClock

app = typer.Typer(
    help="Subscribe organisations to plans, change that, list charges.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

RequestId = Annotated[str | None, typer.Option(help="Your own name for this; under it, it happens once.")]


@app.command()
def start(
    organisation: Annotated[str, typer.Argument(help="The organisation's id.")],
    plan: Annotated[str, typer.Argument(help="The plan; `galerne plans versions` shows them.")],
    interval: Annotated[Interval, typer.Option(help="What is paid for at once.")] = "month",
    currency: Annotated[str, typer.Option(help="Three letters, such as EUR.")] = "EUR",
    seats: Annotated[int, typer.Option(help="How many, where the plan is sold by the seat.")] = 1,
    time_zone: Annotated[str, typer.Option(help="Whose calendar counts: Europe/Paris …")] = "UTC",
    trial: Annotated[bool, typer.Option(help="Begin with the plan's trial, if it has one.")] = True,
    when_unpaid: Annotated[WhenUnpaid, typer.Option(help="What happens when patience ends.")] = "downgrade",
    request_id: RequestId = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Subscribe an organisation to a plan; its limits and its share count at once."""
    order = Order(
        plan_id=plan,
        interval=interval,
        currency=currency,
        seats=seats,
        time_zone=time_zone,
        trial=trial,
        when_unpaid=when_unpaid,
        request_id=request_id,
    )

    async def work(session: AsyncSession, operator: Actor) -> Subscription:
        return await subscribe(session, operator, order, Ids(), SystemClock())

    _print(as_operator(data, work, organisation), as_json)


@app.command()
def ask(
    organisation: Annotated[str, typer.Argument(help="The organisation's id.")],
    what: Annotated[SubscriptionWhat, typer.Argument(help="What shall happen.")],
    plan: Annotated[str | None, typer.Option(help="Which plan, for change.")] = None,
    interval: Annotated[Interval | None, typer.Option(help="Default: as now.")] = None,
    seats: Annotated[int | None, typer.Option(help="How many, for seats or change.")] = None,
    at_period_end: Annotated[bool, typer.Option(help="Not now, but when the period ends.")] = False,
    credit: Annotated[bool, typer.Option(help="For cancel: credit what was paid in advance.")] = True,
    request_id: RequestId = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Change plan or seats, pause, resume, cancel; at once, prorated to the second, or at the period's end."""
    asked = Ask(
        what=what,
        plan_id=plan,
        interval=interval,
        seats=seats,
        when="period_end" if at_period_end else "now",
        credit=credit,
        request_id=request_id,
    )

    async def work(session: AsyncSession, operator: Actor) -> Subscription:
        return await ask_for(session, operator, asked, Ids(), SystemClock())

    _print(as_operator(data, work, organisation), as_json)


@app.command("list")
def list_(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List every organisation's subscriptions, newest first."""
    states = in_transaction(data, list_subscriptions)
    if as_json:
        typer.echo(json.dumps([subscription_fields(state) for state in states], default=plain))
        return
    table = Table("organisation", "plan", Column("seats", justify="right"), "status", "period ends (UTC)", box=None)
    for state in states:
        ends = "-" if state.ended_at else f"{state.period.end:%Y-%m-%d %H:%M}"
        table.add_row(state.organisation_id, state.item.plan_id, str(state.item.seats), state.status, ends)
    print_table(table)


@app.command()
def charges(
    organisation: OrganisationOption = None,
    until: DueBefore = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what an organisation's subscriptions have made due, or will have by a time to come."""
    end = due_before(until)

    async def work(session: AsyncSession, operator: Actor) -> list[Charge]:
        return await organisation_charges(session, operator.organisation_id, end)

    print_charges(as_operator(data, work, organisation), as_json)


@app.command()
def advance(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Let happen what is due: renewals, ends of trials, planned changes, dunning. Safe to run at any time, anywhere."""
    done = 0

    async def work(session: AsyncSession) -> int:
        return await advance_due(session, Ids(), SystemClock())

    while (some := in_transaction(data, work)) > 0:
        done += some
    typer.echo(json.dumps({"object": "advance", "subscriptions": done}) if as_json else f"{done} subscriptions")


def _print(state: Subscription, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(subscription_fields(state), default=plain))
        return
    seats = f", {state.item.seats} seats" if state.item.per_seat else ""
    typer.echo(f"{state.item.plan_id}{seats}: {state.status}, period until {state.period.end:%Y-%m-%d %H:%M} UTC")
