"""`galerne rating`: usage becomes money; what has no price is seen; other prices are shown before they are applied."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer
from pydantic import ValidationError
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import in_transaction, print_table, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import plain
from galerne.billing import (
    Part,
    PriceChange,
    ReratingRun,
    agreed_until,
    begin_rerating,
    continue_rerating,
    find_rerating,
    list_reratings,
    preview_in_pages,
    rate_batch,
    rating_counts,
    rerate_unmatched,
    unmatched_usage,
)
from galerne.billing.prices.schemas import PriceChangeIn
from galerne.billing.rating.schemas import rerating_fields, run_fields
from galerne.identity import find_installation_admin
from galerne.kernel import BadRequest, Clock, Database, Ids, SystemClock

app = typer.Typer(
    help="Rate usage, show what has no price, re-rate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("run")
def run(
    everything: Annotated[bool, typer.Option("--all", help="Look at all events, not only those of late.")] = False,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Rate usage that has not been rated, in batches of a transaction each; safe to kill and to run again."""
    clock = SystemClock()

    async def work(database: Database) -> dict[str, int]:
        sums = {"rated": 0, "unmatched": 0, "late": 0, "priced_since": 0}
        after, more = "" if everything else None, True
        while more:
            async with database.transaction() as session:
                batch = await rate_batch(session, clock, after)
            after, more = batch.last_id, batch.more
            for name in ("rated", "unmatched", "late"):
                sums[name] += getattr(batch, name)
        return sums | {"priced_since": await _rerate_queue(database, clock)}

    _print_counts(with_database(data, work), as_json)


@app.command("queue")
def queue(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show how many events are in each state, and which models lack a price."""

    async def work(session: AsyncSession) -> tuple[dict[str, int], list[dict[str, object]]]:
        waiting: list[dict[str, object]] = [
            {"model": model, "events": n, "since": at} for model, n, at in await unmatched_usage(session)
        ]
        return await rating_counts(session), waiting

    counts, waiting = in_transaction(data, work)
    if as_json:
        typer.echo(json.dumps({"events": counts, "unmatched": waiting}, default=plain))
        return
    _print_counts(counts, False)
    if waiting:
        table = Table("without a price", "events", "since", box=None)
        for row in waiting:
            table.add_row(*(plain(row[name]) for name in ("model", "events", "since")))
        print_table(table)


@app.command("rerate")
def rerate(
    file: Annotated[
        Path | None, typer.Argument(help="Prices as `POST /v1/admin/prices/changes` takes them; none: the queue.")
    ] = None,
    apply: Annotated[str | None, typer.Option(help="Digest of the report: apply exactly that.")] = None,
    period: Annotated[str | None, typer.Option(help="Show this month's use only, such as 2026-11.")] = None,
    organisation: Annotated[str | None, typer.Option(help="Show this organisation's use only, by id.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Rate again what waited for a price, or show what other prices would have cost, and apply it once it was seen.

    It is applied in batches of a transaction each; killed, it goes on when it is asked for again, or with the worker.
    """
    clock = SystemClock()
    if file is None:
        _print_counts(with_database(data, lambda database: _priced(database, clock)), as_json)
        return
    try:
        change = PriceChangeIn.model_validate_json(file.read_bytes()).change(retroactive=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequest(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    part = Part(period, organisation)
    if apply is not None and not part.is_whole:
        raise BadRequest("Prices are one for all: what is applied is the whole.", param="--apply")

    async def work(database: Database) -> dict[str, object]:
        if apply is None:
            return rerating_fields(await preview_in_pages(database, change, clock, part), applied=False)
        return run_fields(await _applied(database, change, apply, clock))

    report = with_database(data, work)
    if apply is not None and not as_json:
        typer.echo(f"Applied: {report['applied']} events of {report['events']} were rated again.")
        return
    if as_json:
        typer.echo(json.dumps(report, default=plain))
    else:
        _print_report(report)


@app.command("reratings")
def reratings(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List re-ratings that were begun, newest first, with how far they are."""

    async def work(session: AsyncSession) -> list[dict[str, object]]:
        return [run_fields(each) for each in await list_reratings(session)]

    rows = in_transaction(data, work)
    if as_json:
        typer.echo(json.dumps(rows, default=plain))
        return
    columns = ("version", "events", "changed", "applied", "started_at", "finished_at")
    table = Table(*(name.replace("_", " ") for name in columns), box=None)
    for row in rows:
        table.add_row(*("-" if row[name] is None else plain(row[name]) for name in columns))
    print_table(table)


async def _applied(database: Database, change: PriceChange, digest: str, clock: Clock) -> ReratingRun:
    async with database.reading() as session:
        run = await find_rerating(session, digest)
        operator = await find_installation_admin(session)
    if run is None:
        report = await preview_in_pages(database, change, clock, as_of=agreed_until(digest))
        async with database.transaction() as session:
            run = await begin_rerating(session, operator, change, (report, digest), Ids(), clock)
    while run.finished_at is None:
        async with database.transaction() as session:
            run = await continue_rerating(session, digest, clock)
    return run


async def _rerate_queue(database: Database, clock: Clock) -> int:
    matched, after = 0, ""
    while True:
        async with database.transaction() as session:
            count, after = await rerate_unmatched(session, clock, after=after)
        matched += count
        if not after:
            return matched


async def _priced(database: Database, clock: Clock) -> dict[str, int]:
    return {"priced_since": await _rerate_queue(database, clock)}


def _print_counts(counts: dict[str, int], as_json: bool) -> None:
    line = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())
    typer.echo(json.dumps(counts) if as_json else line)


def _print_report(report: dict[str, object]) -> None:
    columns = ("organisation_id", "model_id", "token_class", "service_tier", "zone", "currency")
    amounts = ("before", "after", "difference")
    table = Table(*columns, *amounts, box=None)
    for row in cast(list[dict[str, object]], report["differences"]):
        table.add_row(*(plain(row[name]) for name in (*columns, *amounts)))
    print_table(table)
    typer.echo(f"{report['changed']} of {report['events']} events change.")
    if report["digest"] is not None:
        typer.echo(f"To apply exactly this: --apply {report['digest']}")
