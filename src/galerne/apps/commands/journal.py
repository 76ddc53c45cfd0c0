"""`galerne journal`: verify the record of what happened, or export it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from galerne.apps.commands.opened import with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.journal import LeafFilter, Verification, read, read_all, start_verification, verify_more
from galerne.kernel import Database, GalerneError

app = typer.Typer(
    help="Verify or export the journal.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

_PAGE = 1000


class JournalBroken(GalerneError):
    """The journal is not what was once appended."""

    code = "journal_broken"


@app.command()
def verify(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Check every leaf, the chain and the head. Keep the printed head elsewhere: it shows a later rewriting."""
    verdict = with_database(data, _verify)
    if as_json:
        typer.echo(json.dumps(_fields(verdict)))
    elif verdict.problem is None:
        typer.echo(f"sound: {verdict.count} leaves, head {verdict.head.seq}:{verdict.head.chain_hash.hex()}")
    if verdict.problem is not None:
        raise JournalBroken(
            f"The journal is broken at leaf {verdict.problem_seq}: {verdict.problem}. Leaves before it are sound; "
            "stop writing, keep this database as evidence, and compare it with a backup."
        )


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


async def _verify(database: Database) -> Verification:
    async with database.reading() as session:
        verifier = await start_verification(session)
    more = True
    while more:
        async with database.reading() as session:
            more = await verify_more(session, verifier, _PAGE)
    return verifier.result()


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


def _fields(verdict: Verification) -> dict[str, object]:
    return {
        "sound": verdict.problem is None,
        "count": verdict.count,
        "head": {"seq": verdict.head.seq, "chain_hash": verdict.head.chain_hash.hex()},
        "problem": verdict.problem,
        "problem_seq": verdict.problem_seq,
    }
