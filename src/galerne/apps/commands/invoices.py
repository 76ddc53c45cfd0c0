"""`galerne invoices`: reading invoices, as data, PDF and XML, and what the operator does with one."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Column, Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.invoice_proofs import export, proof
from galerne.apps.commands.opened import as_operator, in_transaction, print_table, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.billing import nano_of
from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.pdf import to_pdf
from galerne.billing.documents.validation import Validator
from galerne.billing.invoices import (
    CreditNoteIn,
    FrozenDocument,
    Invoice,
    TopUp,
    detail_fields,
    draft_credit_note,
    draft_top_up,
    finalise_checked,
    find_invoice,
    frozen_document,
    happenings_of,
    invoice_fields,
    invoice_id_of,
    invoice_lines,
    list_invoices,
    mark_sent,
    reissue_invoice,
    void_invoice,
)
from galerne.governance import SYSTEM, Actor
from galerne.kernel import Database, Ids, SystemClock

app = typer.Typer(
    help="List, show, finalise, void and credit invoices.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


InvoiceId = Annotated[str, typer.Argument(help="The invoice's id or number.")]
Target = Annotated[Path | None, typer.Option("--output", help="Where to write it; default: NUMBER in this folder.")]
RequestId = Annotated[str, typer.Option(help="A name of yours for the wish: it happens once.")]


app.command()(proof)
app.command()(export)


@app.command("list")
def list_(
    organisation: Annotated[str | None, typer.Option(help="Only those of this organisation.")] = None,
    after: Annotated[str, typer.Option(help="From beyond this id.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 1000,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """List invoices and credit notes, drafts among them, oldest first."""

    async def work(session: AsyncSession) -> list[Invoice]:
        return await list_invoices(session, organisation, after, limit)

    rows = [invoice_fields(each) for each in in_transaction(data, work)]
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    amounts = [Column(name, justify="right") for name in ("total", "open")]
    table = Table("id", "number", "organisation", "month", "state", *amounts, "currency", box=None)
    for row in rows:
        names = ("id", "number", "organization_id", "period", "state", "total", "open", "currency")
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in names))
    print_table(table)


@app.command()
def show(invoice: InvoiceId, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show an invoice with its lines and its history."""

    async def work(session: AsyncSession) -> dict[str, object]:
        found = await find_invoice(session, SYSTEM, await invoice_id_of(session, invoice))
        return detail_fields(found, await invoice_lines(session, found.id), await happenings_of(session, found.id))

    fields = in_transaction(data, work)
    if as_json:
        typer.echo(json.dumps(fields, default=plain))
        return
    typer.echo(f"{fields['number'] or 'no number'}, {fields['state']}, {fields['total'] or '-'} {fields['currency']}")
    table = Table("line", *(Column(name, justify="right") for name in ("quantity", "price", "per", "amount")), box=None)
    for line in cast(list[dict[str, object]], fields["lines"]):
        table.add_row(*(str(line[name]) for name in ("description", "quantity", "price", "base_quantity", "amount")))
    print_table(table)


@app.command()
def pdf(invoice: InvoiceId, output: Target = None, data: DataFolder = None) -> None:
    """Write an invoice as PDF/A-3 with its EN 16931 XML inside."""
    frozen = _frozen(data, invoice)
    _write(output, f"{frozen.document.draft.number}.pdf", to_pdf(frozen.document, frozen.language))


@app.command()
def xml(invoice: InvoiceId, output: Target = None, data: DataFolder = None) -> None:
    """Write an invoice as EN 16931 XML (CII); an XRechnung where it goes to a German authority."""
    frozen = _frozen(data, invoice)
    _write(output, f"{frozen.document.draft.number}.xml", to_cii(frozen.document, frozen.flavour))


@app.command()
def finalise(invoice: InvoiceId, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Check a draft by EN 16931's rules, and Germany's where they apply, and make it final."""

    async def work(database: Database) -> Invoice:
        async with database.reading() as session:
            invoice_id = await invoice_id_of(session, invoice)
        with Validator() as validator:
            return await finalise_checked(database, SYSTEM, invoice_id, validator.check, SystemClock())

    _print(with_database(data, work), as_json)


@app.command()
def sent(invoice: InvoiceId, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Note that an invoice went out."""
    _change(data, as_json, invoice, lambda session, operator, id_: mark_sent(session, operator, id_, SystemClock()))


@app.command()
def void(
    invoice: InvoiceId,
    reason: Annotated[str, typer.Option(help="Why.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Declare an invoice void, on which nothing was paid or credited."""

    async def work(session: AsyncSession, operator: Actor, invoice_id: str) -> Invoice:
        return await void_invoice(session, operator, invoice_id, reason, SystemClock())

    _change(data, as_json, invoice, work)


@app.command()
def reissue(invoice: InvoiceId, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Draft a void invoice again, to whom the organisation's profile says now."""

    async def work(session: AsyncSession, operator: Actor, invoice_id: str) -> Invoice:
        return await reissue_invoice(session, operator, invoice_id, Ids(), SystemClock())

    _change(data, as_json, invoice, work)


@app.command("credit-note")
def credit_note(
    invoice: InvoiceId,
    reason: Annotated[str, typer.Option(help="Why; it is on the credit note.")],
    request_id: RequestId,
    net: Annotated[str | None, typer.Option(help="How much, without VAT; all of it if left out.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Draft a credit note on an invoice, in whole or in part; finalise it like any invoice."""

    async def work(session: AsyncSession, operator: Actor, invoice_id: str) -> Invoice:
        found = await find_invoice(session, operator, invoice_id)
        asked = CreditNoteIn(reason=reason, request_id=request_id, net=net).crediting(found)
        return await draft_credit_note(session, operator, asked, Ids(), SystemClock())

    _change(data, as_json, invoice, work)


@app.command("top-up")
def top_up(
    organisation: Annotated[str, typer.Argument(help="The organisation's id.")],
    amount: Annotated[str, typer.Argument(help="How much credit, without VAT.")],
    request_id: RequestId,
    currency: Annotated[str, typer.Option(help="In which currency.")] = "EUR",
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Draft an invoice for credit, which is granted once the invoice is paid."""
    nano = nano_of(amount, param="amount")
    asked = TopUp(organisation_id=organisation, amount_nano=nano, currency=currency, request_id=request_id)

    async def work(session: AsyncSession, operator: Actor) -> Invoice:
        return await draft_top_up(session, operator, asked, Ids(), SystemClock())

    _print(as_operator(data, work), as_json)


def _change(
    data: Path | None, as_json: bool, invoice: str, work: Callable[[AsyncSession, Actor, str], Awaitable[Invoice]]
) -> None:
    """Run `work` on the invoice with that id or number, and print what came of it."""

    async def found(session: AsyncSession, operator: Actor) -> Invoice:
        return await work(session, operator, await invoice_id_of(session, invoice))

    _print(as_operator(data, found), as_json)


def _frozen(data: Path | None, invoice: str) -> FrozenDocument:
    async def work(session: AsyncSession) -> FrozenDocument:
        return await frozen_document(session, SYSTEM, await invoice_id_of(session, invoice))

    return in_transaction(data, work)


def _write(output: Path | None, name: str, content: bytes) -> None:
    path = output or Path(name)
    path.write_bytes(content)
    typer.echo(str(path))


def _print(invoice: Invoice, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(invoice_fields(invoice), default=plain))
        return
    typer.echo(f"{invoice.id} {invoice.number or 'no number'}: {invoice.state}")
