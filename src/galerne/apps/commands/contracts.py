"""`galerne contracts`: drafting, what an amendment costs, signing, renewing, and what becomes due."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.charges import DueBefore, due_before, print_charges
from galerne.apps.commands.opened import as_operator, in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.billing import Charge, nano_of
from galerne.billing.contracts import (
    ContractVersion,
    Effect,
    TermsIn,
    amend_contract,
    charges_of_contract,
    contract_fields,
    contract_usage,
    contract_versions,
    draft_contract,
    effect_fields,
    list_contracts,
    preview_amendment,
    renew_due,
    sign_contract,
)
from galerne.governance import Actor
from galerne.kernel import BadRequest, Ids, SystemClock
from galerne.ledger import amount_text

app = typer.Typer(
    help="Draft, preview, sign and renew contracts.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

OrganisationId = Annotated[str, typer.Argument(help="The organisation's id.")]
ContractId = Annotated[str, typer.Argument(help="The contract's id.")]
TermsFile = Annotated[Path, typer.Argument(help="The terms in JSON; see the guide.")]


@app.command()
def draft(
    organisation: OrganisationId,
    name: Annotated[str, typer.Argument(help="What the contract is called.")],
    file: TermsFile,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Draft a contract from a file of terms; it counts once it is signed."""
    version = _terms(file).version()

    async def work(session: AsyncSession, operator: Actor) -> ContractVersion:
        return await draft_contract(session, operator, name, version.terms, Ids(), SystemClock())

    _print(as_operator(data, work, organisation), as_json)


@app.command()
def amend(
    organisation: OrganisationId,
    contract: ContractId,
    file: TermsFile,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Draft other terms from `effective_from` on; the contract stays as it is until they are signed."""
    version = _terms(file).version()

    async def work(session: AsyncSession, operator: Actor) -> ContractVersion:
        return await amend_contract(session, operator, contract, version, SystemClock())

    _print(as_operator(data, work, organisation), as_json)


@app.command()
def preview(
    organisation: OrganisationId,
    contract: ContractId,
    file: TermsFile,
    forecast: Annotated[str, typer.Option(help="What usage is expected to be worth in each month to come.")] = "0",
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show what other terms would cost, month by month, before anybody signs them."""
    version, expected = _terms(file).version(), nano_of(forecast, param="--forecast")

    async def work(session: AsyncSession, operator: Actor) -> Effect:
        usage = await contract_usage(session, operator, contract, SystemClock().now())
        return await preview_amendment(session, operator, contract, version, (usage, expected))

    effect = as_operator(data, work, organisation)
    if as_json:
        typer.echo(json.dumps(effect_fields(effect), default=plain))
        return
    amounts = [Column(name, justify="right") for name in ("before", "after", "difference")]
    table = Table("month from (UTC)", *amounts, box=None)
    for month in effect.months:
        nano = (month.before_nano, month.after_nano, month.after_nano - month.before_nano)
        table.add_row(f"{month.period.start:%Y-%m-%d}", *map(amount_text, nano))
    table.add_row("all", "", "", f"{amount_text(effect.difference_nano)} {effect.currency}")
    print_table(table)


@app.command()
def sign(
    organisation: OrganisationId,
    contract: ContractId,
    version: Annotated[int, typer.Argument(help="Which version.")],
    sha256: Annotated[str, typer.Option(help="Of its terms, as `show` prints it.")],
    signed_by: Annotated[str, typer.Option(help="Who signs.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Record a signature under the terms that have that hash."""

    async def work(session: AsyncSession, operator: Actor) -> ContractVersion:
        return await sign_contract(session, operator, contract, (version, sha256, signed_by), SystemClock())

    _print(as_operator(data, work, organisation), as_json)


@app.command()
def show(organisation: OrganisationId, contract: ContractId, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show every version of a contract, drafts among them."""

    async def work(session: AsyncSession, operator: Actor) -> list[ContractVersion]:
        return await contract_versions(session, operator, contract)

    _print_all(as_operator(data, work, organisation), as_json)


@app.command("list")
def list_(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List every organisation's contracts, each with its newest version."""

    async def work(session: AsyncSession) -> list[ContractVersion]:
        return await list_contracts(session, None)

    _print_all(in_transaction(data, work), as_json)


@app.command()
def charges(
    organisation: OrganisationId,
    contract: ContractId,
    until: DueBefore = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what a contract has made due: instalments, usage, overage, true-ups, minimums, fees."""
    end = due_before(until)

    async def work(session: AsyncSession, operator: Actor) -> list[Charge]:
        usage = await contract_usage(session, operator, contract, end)
        found = await charges_of_contract(session, operator, contract, usage)
        return [charge for charge in found if charge.due_at < end]

    print_charges(as_operator(data, work, organisation), as_json)


@app.command()
def renew(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Renew the contracts whose term is over and that renew themselves. Safe to run at any time, anywhere."""

    async def work(session: AsyncSession) -> int:
        return await renew_due(session, SystemClock())

    done = in_transaction(data, work)
    typer.echo(json.dumps({"object": "renewal", "contracts": done}) if as_json else f"{done} renewals")


def _terms(file: Path) -> TermsIn:
    try:
        return TermsIn.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequest(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _print(version: ContractVersion, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(contract_fields(version), default=plain))
        return
    state = f"signed by {version.signed_by}" if version.signed_at else f"draft, sha256 {version.sha256}"
    typer.echo(f"{version.contract_id} version {version.version}: {state}")


def _print_all(found: list[ContractVersion], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([contract_fields(each) for each in found], default=plain))
        return
    table = Table("id", "name", "organisation", Column("version", justify="right"), "from", "until", "signed", box=None)
    for each in found:
        days = (f"{each.effective_from:%Y-%m-%d}", f"{each.terms.end:%Y-%m-%d}")
        signed = "-" if each.signed_at is None else f"{each.signed_at:%Y-%m-%d}"
        table.add_row(each.contract_id, each.name, each.organisation_id, str(each.version), *days, signed)
    print_table(table)
