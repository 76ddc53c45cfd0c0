"""`galerne payments`: import bank statements, see what waits for a person, record, assign and give back payments."""

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.billing.payments import (
    WEBHOOK_PATH,
    NewPayment,
    NewRefund,
    StripeSecrets,
    allocate_payment,
    assign_entry,
    count_waiting,
    find_payment,
    import_fields,
    import_statement,
    list_payments,
    minor_of,
    payment_fields,
    read_camt053,
    record_payment,
    refund_payment,
    set_entry_aside,
    set_stripe_secrets,
    waiting_entries,
    waiting_fields,
)
from galerne.governance import Actor
from galerne.kernel import Ids, Settings, SystemClock
from galerne.kernel.sealing import open_sealer

app = typer.Typer(
    help="Import bank statements, record, assign and refund payments.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Invoices = Annotated[list[str] | None, typer.Option("--invoice", help="Id of an invoice that it pays; repeat it.")]
Row = dict[str, object]


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A bank statement, ISO 20022 CAMT.053.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Import a bank statement: what matches open invoices pays them, the rest waits; a file twice changes nothing."""
    entries = read_camt053(file.read_bytes())

    async def work(session: AsyncSession, operator: Actor) -> tuple[Row, int]:
        found = await import_statement(session, operator, entries, Ids(), SystemClock())
        return import_fields(found), await count_waiting(session)

    row, waiting = as_operator(data, work)
    if as_json:
        typer.echo(json.dumps(row | {"queue": waiting}))
        return
    typer.echo(f"{row['entries']} bookings: {row['known']} known, {row['paid']} paid, {row['waiting']} wait.")
    if waiting:
        typer.echo(f"{waiting} bookings wait for a person: galerne payments waiting")


@app.command()
def waiting(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List the bookings that nobody has assigned, oldest first."""

    async def work(session: AsyncSession) -> list[Row]:
        return [waiting_fields(each) for each in await waiting_entries(session, 1000)]

    columns = ("id", "booked_on", "amount", "currency", "debtor_name", "remittance", "outcome", "candidates")
    _print(in_transaction(data, work), columns, as_json)


@app.command()
def assign(
    entry: Annotated[str, typer.Argument(help="Id of the booking, from `galerne payments waiting`.")],
    organisation: Annotated[str, typer.Argument(help="Id of the organisation whose payment it is.")],
    invoice: Invoices = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say whose payment a booking is, and which invoices it pays; without any it is the customer's credit."""

    async def work(session: AsyncSession, operator: Actor) -> Row:
        whose = (organisation, tuple(invoice or ()))
        return payment_fields(await assign_entry(session, operator, entry, whose, (Ids(), SystemClock())))

    _print_one(as_operator(data, work), as_json)


@app.command("set-aside")
def set_aside(
    entry: Annotated[str, typer.Argument(help="Id of the booking.")],
    note: Annotated[str, typer.Argument(help="What it is, if no customer's payment.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Take a booking out of the queue that is no customer's payment."""

    async def work(session: AsyncSession, operator: Actor) -> Row:
        return waiting_fields(await set_entry_aside(session, operator, entry, note, SystemClock()))

    row = as_operator(data, work)
    typer.echo(
        json.dumps(row, default=plain) if as_json else f"set aside {row['id']}: {row['amount']} {row['currency']}"
    )


@app.command()
def record(
    organisation: Annotated[str, typer.Argument(help="Id of the organisation that paid.")],
    amount: Annotated[str, typer.Argument(help="How much, such as 250.00")],
    currency: Annotated[str, typer.Option(help="Three letters, such as EUR.")],
    reference: Annotated[str, typer.Option(help="What tells it from other payments; the same counts once.")],
    invoice: Invoices = None,
    on: Annotated[str | None, typer.Option(help="The day it came, such as 2027-01-31. Default: today, UTC.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Record money that came in otherwise than over the bank's statements."""
    new = NewPayment(
        organisation_id=organisation,
        method="other",
        reference=reference,
        currency=currency,
        amount_minor=minor_of(amount, currency),
        received_on=_day(on),
        invoice_ids=tuple(invoice or ()),
    )

    async def work(session: AsyncSession, operator: Actor) -> Row:
        return payment_fields(await record_payment(session, operator, new, Ids(), SystemClock()))

    _print_one(as_operator(data, work), as_json)


@app.command()
def allocate(
    payment: Annotated[str, typer.Argument(help="The payment's id.")],
    invoice: Annotated[list[str], typer.Argument(help="Ids of invoices, paid in this order.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Pay invoices with what is free of a payment."""

    async def work(session: AsyncSession, operator: Actor) -> Row:
        return payment_fields(await allocate_payment(session, operator, payment, invoice, Ids(), SystemClock()))

    _print_one(as_operator(data, work), as_json)


@app.command()
def refund(
    payment: Annotated[str, typer.Argument(help="The payment's id.")],
    amount: Annotated[str, typer.Argument(help="How much, such as 12.50; never more than was captured.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    request_id: Annotated[str, typer.Option(help="Names the wish: the same gives back once.")],
    reference: Annotated[str, typer.Option(help="The bank's or the processor's reference.")] = "",
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Record that a payment was given back, in part or whole: its free part first, then what it paid last."""

    async def work(session: AsyncSession, operator: Actor) -> Row:
        currency = (await find_payment(session, payment)).currency
        minor = minor_of(amount, currency)
        new = NewRefund(request_id=request_id, amount_minor=minor, reason=reason, reference=reference)
        return payment_fields(await refund_payment(session, operator, payment, new, Ids(), SystemClock()))

    _print_one(as_operator(data, work), as_json)


@app.command()
def stripe(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Set Stripe's secret key and the webhook's signing secret: asked for, or two lines of standard input."""
    asked = ("Secret key (sk_… or rk_…)", "Signing secret of the webhook (whsec_…)")
    if sys.stdin.isatty():
        secrets = StripeSecrets(*(typer.prompt(each, hide_input=True) for each in asked))
    else:
        secrets = StripeSecrets(*(sys.stdin.readline().strip() for _ in asked))
    sealer = open_sealer(Settings().with_data(data))

    async def work(session: AsyncSession, operator: Actor) -> None:
        await set_stripe_secrets(session, operator, secrets, sealer, SystemClock())

    as_operator(data, work)
    row = {"object": "payments.processor", "name": "stripe", "webhook": WEBHOOK_PATH}
    typer.echo(json.dumps(row) if as_json else f"Stripe is set up; have it tell {WEBHOOK_PATH}.")


@app.command("list")
def list_(
    organisation: Annotated[str | None, typer.Option(help="Only this organisation's.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List payments, newest first: what they pay, what was given back, what is free."""

    async def work(session: AsyncSession) -> list[Row]:
        return [payment_fields(each) for each in await list_payments(session, organisation, 1000)]

    _print(in_transaction(data, work), _COLUMNS, as_json)


_COLUMNS = ("id", "organisation_id", "received_on", "method", "amount", "allocated", "refunded", "free", "currency")


def _day(text: str | None) -> date:
    return SystemClock().now().astimezone(UTC).date() if text is None else datetime.fromisoformat(text).date()


def _print(rows: list[Row], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    table = Table(*(name.replace("_", " ") for name in columns), box=None)
    for row in rows:
        cells = (row[name] for name in columns)
        table.add_row(*(" ".join(cast(list[str], cell)) if isinstance(cell, list) else plain(cell) for cell in cells))
    print_table(table)


def _print_one(row: Row, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row, default=plain))
    else:
        typer.echo(f"{row['id']}: {row['amount']} {row['currency']}, free {row['free']}, refunded {row['refunded']}")
