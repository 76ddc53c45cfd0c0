"""`galerne journal`: sign, prove, verify or export the record of what happened."""

import json
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import as_operator, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.verify import KeyOption, read_file, read_keys
from galerne.apps.routes.proofs import key_fields, proof_fields
from galerne.governance import SYSTEM, Actor
from galerne.journal import (
    Audit,
    Follower,
    LeafFilter,
    Proof,
    PublishedKey,
    SignedCheckpoint,
    VerifierKey,
    audit,
    consistency_proof,
    list_keys,
    prove_leaf,
    read,
    read_all,
    rotate_key,
)
from galerne.kernel import Database, GalerneError, Settings, SystemClock
from galerne.kernel.sealing import open_sealer

app = typer.Typer(
    help="Sign, prove, verify or export the journal.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

_PAGE = 1000


class JournalBroken(GalerneError):
    """The journal is not what was once appended."""

    code = "journal_broken"


@app.command()
def verify(
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint kept elsewhere, to be compared too. Repeat for several.")
    ] = None,
    key: KeyOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Check every leaf, the chain, the tree and every checkpoint. Keep the printed head, or better a checkpoint,
    elsewhere: it shows a later rewriting.
    """
    kept, keys = [read_file(path) for path in checkpoint or []], read_keys(key)

    async def work(database: Database) -> Audit:
        return await audit(database, kept, keys)

    found = with_database(data, work)
    if as_json:
        typer.echo(json.dumps(_fields(found)))
    elif found.chain.problem is None and found.problem is None:
        head = f"{found.chain.head.seq}:{found.chain.head.chain_hash.hex()}"
        typer.echo(f"sound: {found.chain.count} leaves, head {head}")
        typer.echo(f"tree: {found.tree_size} leaves, {found.checkpoints} checkpoints hold")
    if found.chain.problem is not None:
        raise JournalBroken(
            f"The journal is broken at leaf {found.chain.problem_seq}: {found.chain.problem}. Leaves before it are "
            "sound; stop writing, keep this database as evidence, and compare it with a backup."
        )
    if found.problem is not None:
        raise JournalBroken(f"{found.problem} Stop writing, keep this database as evidence, compare it with a backup.")


@app.command()
def checkpoint(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Sign all that has happened until now and print the checkpoint. Keep it elsewhere: it shows a later rewriting."""
    settings = Settings().with_data(data)

    async def work(database: Database) -> SignedCheckpoint:
        return await Follower(database, settings, SystemClock(), SYSTEM).checkpoint()

    signed = with_database(data, work)
    if as_json:
        tree = {"size": signed.checkpoint.size, "root": signed.checkpoint.root.hex()}
        fields = {"object": "checkpoint", "number": signed.number, "origin": signed.checkpoint.origin, **tree}
        typer.echo(json.dumps({**fields, "at": signed.at.isoformat(), "note": signed.note}))
    else:
        typer.echo(signed.note, nl=False)


@app.command()
def prove(
    seq: Annotated[int, typer.Argument(min=1, help="The entry's number.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: standard output.")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write an entry with the proof that it is in the journal, for `galerne verify proof` (C2SP tlog-proof)."""

    async def work(database: Database) -> Proof:
        async with database.reading() as session:
            return await prove_leaf(session, seq)

    proof = with_database(data, work)
    text = json.dumps(proof_fields(proof)) + "\n" if as_json else proof.text
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


@app.command()
def consistency(
    first: Annotated[int, typer.Argument(min=0, help="The size of an earlier checkpoint.")],
    second: Annotated[int, typer.Argument(min=0, help="The size of a later one.")],
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Print the hashes that prove the journal of FIRST entries to be the beginning of that of SECOND, one a line."""

    async def work(database: Database) -> list[bytes]:
        async with database.reading() as session:
            return await consistency_proof(session, first, second)

    hashes = [b64encode(each).decode() for each in with_database(data, work)]
    if as_json:
        typer.echo(json.dumps({"object": "consistency_proof", "first": first, "second": second, "hashes": hashes}))
    else:
        typer.echo("".join(f"{each}\n" for each in hashes), nl=False)


@app.command("keys")
def keys_(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Print the public keys that checkpoints are signed with, oldest first. Give them to those who verify."""

    async def work(database: Database) -> list[PublishedKey]:
        async with database.reading() as session:
            return await list_keys(session)

    found = with_database(data, work)
    if as_json:
        typer.echo(json.dumps([key_fields(each) for each in found], default=str))
    else:
        typer.echo("".join(f"{each.key.text}\n" for each in found), nl=False)


@app.command("rotate-key")
def rotate(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Make a new signing key. The next checkpoint is signed by the old one too; then its private half is gone."""
    sealer = open_sealer(Settings().with_data(data))

    async def work(session: AsyncSession, actor: Actor) -> VerifierKey:
        return await rotate_key(session, actor, sealer, SystemClock())

    key = as_operator(data, work)
    typer.echo(json.dumps({"object": "journal_key", "id": key.id, "key": key.text}) if as_json else key.text)


@app.command()
def export(
    organisation: Annotated[str | None, typer.Option(help="Only the leaves of this organisation's id.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: standard output.")
    ] = None,
    data: DataFolder = None,
    as_json: AsJson = False,  # as on every command; here it changes nothing, since JSON lines are all there is
) -> None:
    """Write the journal as JSON lines, oldest first: each leaf as it was hashed, with its hashes."""

    async def work(database: Database) -> int:
        if output is None:
            return await _export(database, organisation, sys.stdout.buffer.write)
        with output.open("wb") as file:
            return await _export(database, organisation, file.write)

    count = with_database(data, work)
    if output is not None:
        typer.echo(f"{count} leaves written to {output}", err=True)


async def _export(database: Database, organisation_id: str | None, write: Callable[[bytes], object]) -> int:
    count, after = 0, 0
    while True:
        wanted = LeafFilter(after=after, oldest_first=True)
        async with database.reading() as session:
            if organisation_id is None:
                leaves = await read_all(session, wanted, _PAGE)
            else:
                leaves = await read(session, organisation_id, wanted, _PAGE)
        if not leaves:
            return count
        write(b"".join(leaf.json_line() for leaf in leaves))
        count, after = count + len(leaves), leaves[-1].seq


def _fields(found: Audit) -> dict[str, object]:
    chain = found.chain
    return {
        "sound": chain.problem is None and found.problem is None,
        "count": chain.count,
        "head": {"seq": chain.head.seq, "chain_hash": chain.head.chain_hash.hex()},
        "problem": chain.problem,
        "problem_seq": chain.problem_seq,
        "tree": {"size": found.tree_size, "checkpoints": found.checkpoints, "problem": found.problem},
    }
