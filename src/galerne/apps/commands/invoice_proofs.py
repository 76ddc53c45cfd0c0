"""`galerne invoices proof` and `export`: what a customer is given, so that it can check an invoice without us."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from galerne.apps.commands.opened import with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.billing.documents.pdf import to_pdf
from galerne.billing.invoice_usage import OpenedProof, open_proof, proof_lines
from galerne.billing.invoices import (
    FrozenDocument,
    Invoice,
    find_invoice,
    frozen_document,
    invoice_id_of,
    list_invoices,
)
from galerne.governance import SYSTEM
from galerne.journal import Follower
from galerne.kernel import Conflict, Database, NotFound, Settings, SystemClock

_PAGE = 1000


def proof(
    invoice: Annotated[str, typer.Argument(help="The invoice's id or number.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: standard output.")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,  # as on every command; here it changes nothing, since the file is JSON
) -> None:
    """Write an invoice's proof, for `galerne verify invoice`: its requests, and what the journal says of each."""

    async def work(database: Database) -> None:
        async with database.reading() as session:
            found = await find_invoice(session, SYSTEM, await invoice_id_of(session, invoice))
        opened = await _opened(database, found, data)
        if output is None:
            await _write(database, opened, sys.stdout.buffer.write)
        else:
            await _write_file(database, opened, output)

    with_database(data, work)


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if it is not there.")],
    organisation: Annotated[str | None, typer.Option(help="Only this organisation's, by id.")] = None,
    period: Annotated[str | None, typer.Option(help="Only this month's, such as 2026-11.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write each final invoice as NUMBER.pdf (PDF/A-3 with its XML inside) and NUMBER.proof.json.

    One over nothing to pay has no number and is no invoice to the law: its proof alone is written, as ID.proof.json.
    """
    folder.mkdir(parents=True, exist_ok=True)

    async def work(database: Database) -> list[dict[str, str | None]]:
        chosen = [
            each
            for each in await _invoices(database)
            if (each.number is not None or each.state == "empty")
            and organisation in (None, each.organisation_id)
            and period in (None, each.period)
        ]
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("Exporting invoices", total=len(chosen))
            return [await _exported(database, each, (folder, data), (bar, task)) for each in chosen]

    written = with_database(data, work)
    typer.echo(json.dumps(written) if as_json else f"{len(written)} invoices written to {folder}")


async def _exported(
    database: Database, invoice: Invoice, where: tuple[Path, Path | None], bar: tuple[Progress, TaskID]
) -> dict[str, str | None]:
    folder, data = where
    name = (invoice.number or invoice.id).replace("/", "-")
    pdf = None if invoice.number is None else folder / f"{name}.pdf"
    if pdf is not None:
        async with database.reading() as session:
            frozen: FrozenDocument = await frozen_document(session, SYSTEM, invoice.id)
        pdf.write_bytes(to_pdf(frozen.document, frozen.language))
    file: Path | None = folder / f"{name}.proof.json"
    try:
        await _write_file(database, await _opened(database, invoice, data), folder / f"{name}.proof.json")
    except Conflict as problem:
        if problem.code != "not_provable":
            raise
        file = None  # closed before what it says was kept
    bar[0].advance(bar[1])
    paths = {"pdf": None if pdf is None else str(pdf), "proof": None if file is None else str(file)}
    return {"id": invoice.id, "number": invoice.number, **paths}


async def _invoices(database: Database) -> list[Invoice]:
    found: list[Invoice] = []
    after, more = "", True
    while more:
        async with database.reading() as session:
            page = await list_invoices(session, None, after, _PAGE)
        found += page
        more = len(page) == _PAGE
        after = page[-1].id if page else ""
    return found


async def _opened(database: Database, invoice: Invoice, data: Path | None) -> OpenedProof:
    try:
        async with database.reading() as session:
            return await open_proof(session, SYSTEM, invoice.id)
    except NotFound as problem:
        if problem.code != "not_yet_signed":
            raise
    await Follower(database, Settings().with_data(data), SystemClock(), SYSTEM).checkpoint()
    async with database.reading() as session:
        return await open_proof(session, SYSTEM, invoice.id)


async def _write_file(database: Database, opened: OpenedProof, path: Path) -> None:
    # What was cut off by a stop must not be taken for a proof.
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        await _write(database, opened, file.write)
    part.replace(path)


async def _write(database: Database, opened: OpenedProof, write: Callable[[bytes], object]) -> None:
    async for piece in proof_lines(database, opened):
        write(piece)
