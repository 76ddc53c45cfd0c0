"""`galerne billing`: closing a month, who issues invoices, to whom an organisation's go."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import as_operator, in_transaction, print_table, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.billing.documents.validation import Validator
from galerne.billing.invoices import (
    CloseOrder,
    CloseParts,
    CloseReport,
    Issuer,
    IssuerIn,
    ProfileIn,
    close_billing,
    draft_fields,
    issuer_fields,
    list_issuers,
    need_profile,
    preview_close,
    profile_fields,
    report_fields,
    set_issuer,
    set_profile,
)
from galerne.governance import SYSTEM, Actor
from galerne.kernel import BadRequest, Database, Ids, SystemClock

app = typer.Typer(
    help="Close a month; set who issues invoices and to whom they go.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
B = TypeVar("B", bound=BaseModel)


@app.command()
def close(
    month: Annotated[str, typer.Argument(help="Which month, such as 2026-11.")],
    until: Annotated[str | None, typer.Option(help="Close it early, with what there was before: an ISO time.")] = None,
    allow_unmatched: Annotated[
        bool, typer.Option("--allow-unmatched", help="Close although some usage has no price yet.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the drafts; write nothing.")] = False,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Rate, draft, check and finalise every customer's invoices. Safe to kill and to run again."""
    clock = SystemClock()
    end = None if until is None else moment("--until", until, clock.now(), past=True)
    order = CloseOrder(period=month, until=end, allow_unmatched=allow_unmatched)
    if dry_run:
        _preview(data, order, as_json)
        return

    async def work(database: Database) -> CloseReport:
        with Validator() as validator, _progress(as_json) as bar:
            task = bar.add_task(month, total=None)
            parts = CloseParts(
                ids=Ids(),
                clock=clock,
                check=validator.check,
                progress=lambda stage, done, whole: bar.update(
                    task, description=f"{month} {stage}", completed=done, total=whole or None
                ),
            )
            return await close_billing(database, SYSTEM, order, parts)

    report = with_database(data, work)
    if as_json:
        typer.echo(json.dumps(report_fields(report), default=plain))
    else:
        _print_report(report)
    if not report.is_done:
        raise typer.Exit(1)


@app.command("issuer")
def issuer(
    issuer_id: Annotated[str, typer.Argument(metavar="ID", help="A short name of ours for the legal entity.")],
    file: Annotated[Path, typer.Argument(help="The settings in JSON; see the guide.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Register a legal entity that invoices, or change it."""
    body = _read(IssuerIn, file)

    async def work(session: AsyncSession, operator: Actor) -> Issuer:
        return await set_issuer(session, operator, body.issuer(issuer_id), SystemClock())

    _print(issuer_fields(as_operator(data, work)), as_json)


@app.command("issuers")
def issuers(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List the legal entities that invoice."""
    found = in_transaction(data, list_issuers)
    if as_json:
        typer.echo(json.dumps([issuer_fields(each) for each in found], default=_plain))
        return
    table = Table("id", "name", "country", "VAT id", "prefix", box=None)
    for each in found:
        table.add_row(each.id, each.name, each.address.country, each.vat_id, each.prefix)
    print_table(table)


@app.command("profile")
def profile(
    organisation: Annotated[str, typer.Argument(help="The organisation's id.")],
    file: Annotated[Path | None, typer.Argument(help="The profile in JSON; none: show it.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Set or show to whom an organisation's invoices go, and in whose name they are issued."""
    wanted = None if file is None else _read(ProfileIn, file).profile(organisation)

    async def work(session: AsyncSession, operator: Actor) -> dict[str, object]:
        if wanted is None:
            return profile_fields(await need_profile(session, organisation))
        return profile_fields(await set_profile(session, operator, wanted, SystemClock()))

    _print(as_operator(data, work, organisation), as_json)


def _preview(data: Path | None, order: CloseOrder, as_json: bool) -> None:
    numbers = [Column(name, justify="right") for name in ("lines", "net")]
    table = Table("organisation", "currency", *numbers, box=None)
    missing = list[str]()

    async def work(database: Database) -> None:
        async for draft in preview_close(database, order):
            fields = draft_fields(draft)
            if as_json:
                typer.echo(json.dumps(fields, default=plain))
            else:
                table.add_row(draft.organisation_id, draft.currency, str(len(draft.lines)), str(fields["exact"]))
                missing.extend(f"{draft.organisation_id}: {each}" for each in draft.missing)

    with_database(data, work)
    if not as_json:
        print_table(table)
        for each in missing:
            typer.echo(each)
        typer.echo("Nothing was written. Usage that is not rated yet is not in it: see `galerne rating queue`.")


def _progress(as_json: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, disable=as_json or not sys.stdout.isatty())


def _print_report(report: CloseReport) -> None:
    typer.echo(f"{report.period}: {report.invoices} invoices, {report.empty} with nothing to pay.")
    if report.unmatched:
        typer.echo(f"{report.unmatched} requests have no price; they are billed in the month in which they get one.")
    for each in report.unbilled:
        typer.echo(f"{each}: has no billing profile and was not invoiced.")
    for name, why in report.refused.items():
        typer.echo(f"{name}: refused: {why}")
    if not report.is_done:
        typer.echo("Put that right and run it again.")


def _print(fields: dict[str, object], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields, default=_plain))
        return
    typer.echo(f"{fields.get('id') or fields['organization_id']}: {fields['name']}")


def _plain(value: Any) -> Any:
    if hasattr(value, "__slots__"):
        return {name: getattr(value, name) for name in value.__slots__}
    return plain(value)


def _read(form: type[B], file: Path) -> B:
    try:
        return form.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequest(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
