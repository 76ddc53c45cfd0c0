"""`galerne verify`: check what somebody was given, offline, with public keys alone; no installation is needed."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Annotated

import typer

from galerne.apps.commands.options import AsJson
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
    help="Verify a proof, a checkpoint or an export, offline.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

KeyOption = Annotated[
    list[str] | None,
    typer.Option(help="A public key that you trust (NAME+ID+BASE64), or a file of them. Repeat for several."),
]

_LARGEST_FILE = 1_000_000


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
