"""`galerne credits`: grant credit in lots, see, end and correct them, check that the books add up."""

import json
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import as_operator, print_table, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption, plain
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import Database, GalerneError, Ids, SystemClock
from galerne.ledger import (
    USUAL_PRIORITY,
    Correction,
    Grant,
    LotKind,
    LotSource,
    Statement,
    accounts_of,
    all_accounts,
    amount_of,
    amount_text,
    burn_lots,
    check_books,
    correct_charge,
    lots_of,
    statement_of,
    sweep_all,
    void_lot,
)
from galerne.ledger import grant_credit as give
from galerne.ledger.schemas import balance_fields, lapse_fields, lot_fields, statement_fields

app = typer.Typer(
    help="Grant, list, end and correct credit, check the books.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
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
    promotional: Annotated[bool, typer.Option("--promotional", help="Nobody paid for it.")] = False,
    priority: Annotated[int, typer.Option(help="0 is burned first, 100 last.")] = USUAL_PRIORITY,
    begins: Annotated[
        str | None, typer.Option("--from", help="When it can be used: an ISO time. Default: now.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d or an ISO time. Default: never.")] = None,
    invoice: Annotated[str | None, typer.Option(help="Number of the invoice that it was bought with.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give an organisation credit as one lot, which its requests are paid from.

    Of several lots the one with the lowest priority number is burned first, then the one that expires first, then what
    nobody paid for, then the oldest.
    """
    now = SystemClock().now()
    source = LotSource.GRANT if promotional else LotSource.PAYMENT
    new = Grant(
        id=grant_id or Ids().new(),
        amount_nano=amount_of(amount),
        currency=currency,
        reason=reason,
        kind=LotKind.PROMOTIONAL if promotional else LotKind.PAID,
        priority=priority,
        effective_at=_moment("--from", begins, now),
        expires_at=_moment("--expires", expires, now),
        source=source if invoice is None else LotSource.INVOICE,
        source_ref=invoice,
    )

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
def statement(
    account: Annotated[str, typer.Argument(help="The account's id, as `galerne credits list` shows it.")],
    organisation: OrganisationOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Latest transfers to list.")] = 20,
    page: Annotated[str | None, typer.Option(help="`next_page` of the page before, for older ones.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what moved the balance of an organisation's account, the last first. That it was looked at is recorded."""

    async def work(session: AsyncSession, actor: Actor) -> Statement:
        found = await statement_of(session, actor.organisation_id, account, limit, page)
        resource, now = f"account:{account}", SystemClock().now()
        await append(session, [Entry(action="credit.listed", actor=actor, resource=resource, outcome="done", at=now)])
        return found

    fields = statement_fields(found := as_operator(data, work, organisation))
    if as_json:
        typer.echo(json.dumps(fields, default=plain))
        return
    amounts = [Column(name, justify="right") for name in ("change", "balance")]
    table = Table("at (UTC)", "transfer", "other side", *amounts, "reason", box=None)
    for line in found.lines:
        nano = (amount_text(line.change_nano), amount_text(line.balance_nano))
        table.add_row(_shown(line.at), line.id, str(line.other), *nano, line.reason or "request")
    print_table(table)
    if found.next_page is not None:
        typer.echo(f"older ones: --page {found.next_page}")


@app.command()
def lots(organisation: OrganisationOption = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """List an organisation's lots in the order in which they are burned."""

    async def work(session: AsyncSession, actor: Actor) -> list[dict[str, object]]:
        return [lot_fields(each) for each in await lots_of(session, actor.organisation_id)]

    rows = as_operator(data, work, organisation)
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    amounts = [Column(name, justify="right") for name in ("amount", "burned", "left")]
    table = Table("lot", "kind", "priority", "from (UTC)", "expires (UTC)", "currency", *amounts, box=None)
    for row in rows:
        times = (_shown(row["effective_at"]), "voided" if row["voided_at"] else _shown(row["expires_at"]))
        words = (str(row[name]) for name in ("currency", "amount", "burned", "left"))
        table.add_row(str(row["id"]), str(row["kind"]), str(row["priority"]), *times, *words)
    print_table(table)


@app.command()
def burn(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Burn what was spent onto lots; safe to kill and to run again."""
    count = with_database(data, burn_lots)
    typer.echo(json.dumps({"object": "burned", "transfers": count}) if as_json else f"burned {count:,} transfers")


@app.command()
def expire(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Begin the lots that have become effective, and book what is left of those that have ended.

    What requests under way may still take of a lot is booked by a later run.
    """

    async def work(database: Database) -> list[dict[str, object]]:
        return [lapse_fields(each) for each in await sweep_all(database, SystemClock())]

    _print_lapses(with_database(data, work), as_json)


@app.command()
def void(
    lot: Annotated[str, typer.Argument(help="The lot's id.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the lot.")],
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """End a lot; what is left of it goes back to where it came from, what is held once it is free."""

    async def work(session: AsyncSession, actor: Actor) -> list[dict[str, object]]:
        return [lapse_fields(each) for each in await void_lot(session, actor, lot, reason, SystemClock())]

    _print_lapses(as_operator(data, work, organisation), as_json)


@app.command()
def correct(
    charge: Annotated[str, typer.Argument(help="The transfer that charged too much: a request's id.")],
    amount: Annotated[str, typer.Argument(help="How much of it is given back.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the transfer.")],
    correction_id: Annotated[str | None, typer.Option("--id", help="Its name: the same id is given back once.")] = None,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Give back what was charged wrongly to the lots that paid for it, the last burned first.

    What came from a lot that has ended comes back as a new one, valid for 30 days if the old one could expire.
    """
    new = Correction(id=correction_id or Ids().new(), charge_id=charge, amount_nano=amount_of(amount), reason=reason)

    async def work(session: AsyncSession, actor: Actor) -> bool:
        return await correct_charge(session, actor, new, SystemClock())

    done = as_operator(data, work, organisation)
    shown = amount_text(new.amount_nano)
    if as_json:
        fields = {"object": "correction", "id": new.id, "charge": charge, "amount": shown, "corrected": done}
        typer.echo(json.dumps(fields))
    else:
        typer.echo(f"{'given back' if done else 'given back before'}: {shown} (id {new.id})")


@app.command()
def check(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Derive every balance, hold and lot from the transfers once more; exit 1 naming what differs."""

    async def work(database: Database) -> list[str]:
        async with database.reading() as session:
            return await check_books(session)

    problems = with_database(data, work)
    if as_json:
        typer.echo(json.dumps({"object": "books", "sound": not problems, "problems": problems}))
    elif not problems:
        typer.echo("sound: every balance and lot is what its transfers say")
    if problems:
        raise BooksBroken("The books do not add up: " + "; ".join(problems))


def _moment(option: str, text: str | None, now: datetime) -> datetime | None:
    return None if text is None else moment(option, text, now, past=False)


def _shown(value: object) -> str:
    return value.strftime("%Y-%m-%d %H:%M") if isinstance(value, datetime) else "-"


def _print_lapses(rows: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['kind']}: {row['amount']} of lot {row['lot']} (transfer {row['transfer']})")
    if not rows:
        typer.echo("nothing to book")
