"""`galerne verify`: check what somebody was given, offline, with public keys alone; no installation is needed."""

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from galerne.apps.commands.options import AsJson
from galerne.billing.documents.amounts import from_minor
from galerne.billing.proof import RULES, Checked, verify_invoice
from galerne.journal import (
    Checkpoint,
    ProofRefused,
    VerifierKey,
    parse_key,
    parse_proof,
    verify_checkpoint,
    verify_export,
    verify_growth,
    verify_proof,
)

app = typer.Typer(
    help="Verify an invoice, a proof, a checkpoint or an export, offline.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

KeyOption = Annotated[
    list[str] | None,
    typer.Option(help="A public key that you trust (NAME+ID+BASE64), or a file of them. Repeat for several."),
]

_LARGEST_FILE = 1_000_000
_SHOWN = 20
_LONG_BYTES = 4_000_000


class InvoiceRefused(ProofRefused):
    """An invoice's proof does not hold."""

    code = "invoice_refused"


@app.callback()
def group() -> None:
    """Check what somebody was given with public keys alone."""


@app.command()
def journal(
    file: Annotated[Path, typer.Argument(help="What `galerne journal export` wrote.")],
    checkpoint: Annotated[
        list[Path], typer.Option(help="A signed checkpoint. Repeat for several, kept at other times.")
    ],
    key: KeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Check an export: every leaf, its place, and that the signed checkpoints are over exactly these leaves."""
    keys = _needed(key)
    signed = [verify_checkpoint(read_file(path), keys) for path in checkpoint]
    with file.open("rb") as lines:
        found = verify_export(lines, signed)
    if as_json:
        said = {"sound": True, "count": found.count, "signed": found.signed, "chain_hash": found.chain_hash.hex()}
        typer.echo(json.dumps(said))
    else:
        typer.echo(f"sound: {found.count} leaves, {found.signed} of them under a signed checkpoint")


@app.command()
def proof(
    file: Annotated[Path, typer.Argument(help="What `galerne journal prove` wrote.")],
    key: KeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Check that an entry is in the journal, and print it."""
    found = parse_proof(read_file(file))
    signed = verify_proof(found, _needed(key))
    if as_json:
        entry = json.loads(found.leaf)
        typer.echo(json.dumps({"sound": True, "seq": found.index + 1, **_fields(signed), "entry": entry}))
    else:
        typer.echo(f"sound: entry {found.index + 1} of the {signed.size} signed leaves of {signed.origin}")
        typer.echo(found.leaf.decode())


@app.command()
def invoice(
    file: Annotated[Path, typer.Argument(help="What `galerne invoices proof` wrote, or the API gave you.")],
    key: KeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Check an invoice: that every request on it was yours and was counted so, that prices, tax and totals follow."""
    checked = _checked(file, _needed(key))
    if as_json:
        typer.echo(json.dumps(checked_fields(checked)))
    elif checked.proved:
        typer.echo(_summary(checked))
    else:
        for finding in checked.findings.kept[:_SHOWN]:
            typer.echo(finding.text)
    if not checked.proved:
        first = checked.findings.kept[0]
        rest = f" and {checked.findings.count - 1} more" if checked.findings.count > 1 else ""
        raise InvoiceRefused(f"{file} does not prove the invoice: {first.text} ({RULES[first.rule]}){rest}.")


@app.command("checkpoint")
def checkpoint_(
    file: Annotated[Path, typer.Argument(help="A signed checkpoint.")],
    since: Annotated[Path | None, typer.Option(help="An earlier checkpoint that this one should continue.")] = None,
    consistency: Annotated[
        Path | None, typer.Option(help="What `galerne journal consistency` printed for the two sizes.")
    ] = None,
    key: KeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Check a checkpoint's signature and, with --since, that nothing was rewritten between the two."""
    keys = _needed(key)
    signed = verify_checkpoint(read_file(file), keys)
    if since is not None:
        old = verify_checkpoint(read_file(since), keys)
        verify_growth(old, signed, [] if consistency is None else _hashes(read_file(consistency)))
    if as_json:
        typer.echo(json.dumps({"sound": True, **_fields(signed)}))
    else:
        typer.echo(f"sound: {signed.origin} had {signed.size} leaves, root {signed.root.hex()}")


def checked_fields(checked: Checked) -> dict[str, object]:
    """What a verifier found, as the command line shows it."""
    fields: dict[str, object] = {
        "sound": checked.proved,
        "requests": checked.requests,
        "late": checked.late,
        "entries": checked.entries,
        "paid_nano": checked.paid_nano,
    }
    if checked.statement is not None:
        draft, totals = checked.statement.draft, checked.statement.frozen.document.totals
        frozen = checked.statement.frozen
        fields |= {"invoice_id": frozen.invoice_id, "number": None if frozen.is_empty else draft.number}
        fields |= {"period": frozen.period, "currency": draft.currency}
        fields |= {"net_minor": totals.net_minor, "tax_minor": totals.tax_minor, "due_minor": totals.due_minor}
    if checked.signed is not None:
        fields |= {"checkpoint": _fields(checked.signed)}
    problems = [
        {"rule": each.rule, "where": each.where, "expected": each.expected, "found": each.found}
        for each in checked.findings.kept
    ]
    return fields | {"problem_count": checked.findings.count, "problems": problems}


def read_file(path: Path) -> str:
    """A small text file; raises `ProofRefused` when it is neither."""
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    try:
        if len(content) <= _LARGEST_FILE:
            return content.decode()
    except UnicodeDecodeError:
        pass
    raise ProofRefused(f"{path} is not a text of at most {_LARGEST_FILE:,} bytes.")


def read_keys(given: list[str] | None) -> list[VerifierKey]:
    """The public keys that were named, each as itself or by a file of lines; raises `ProofRefused` for others."""
    lines: list[str] = []
    for each in given or []:
        lines += read_file(Path(each)).splitlines() if Path(each).is_file() else [each]
    return [parse_key(line) for line in lines if line.strip()]


def _checked(path: Path, keys: list[VerifierKey]) -> Checked:
    size = path.stat().st_size
    shown = sys.stderr.isatty() and size > _LONG_BYTES
    with path.open("rb") as file, Progress(console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("Checking requests", total=size)
        return verify_invoice(file, keys, lambda _count: bar.update(task, completed=file.tell()))


def _summary(checked: Checked) -> str:
    fields = checked_fields(checked)
    late = f", {checked.late} of them of earlier months" if checked.late else ""
    due = from_minor(int(str(fields["due_minor"])), str(fields["currency"]))
    month = f" for {fields['period']}" if fields["period"] else ""  # a top-up is for none
    return (
        f"sound: invoice {fields['number'] or fields['invoice_id']}{month}: {checked.requests} requests{late}, "
        f"{due} {fields['currency']} due; all of it under the checkpoint of "
        f"{checked.signed.size if checked.signed else 0} leaves of {checked.signed.origin if checked.signed else ''}"
    )


def _needed(given: list[str] | None) -> list[VerifierKey]:
    keys = read_keys(given)
    if not keys:
        raise ProofRefused("Name the public key that you trust with --key; `galerne journal keys` prints it.")
    return keys


def _hashes(text: str) -> list[bytes]:
    try:
        return [b64decode(line, validate=True) for line in text.split()]
    except ValueError:
        raise ProofRefused("A line of the consistency proof is not base64.") from None


def _fields(signed: Checkpoint) -> dict[str, object]:
    return {"origin": signed.origin, "size": signed.size, "root": signed.root.hex()}
