"""`galerne usage`: what was consumed on this installation and what that cost, for its operator."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from galerne.apps.commands.moments import moment
from galerne.apps.commands.opened import print_table, with_database
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.tenants import OrganisationOption
from galerne.billing.costs import CostFormat, CostQuery, cost_groups, stream_costs, write_costs
from galerne.identity import operator_in
from galerne.kernel import Database, SystemClock
from galerne.metering import Totals, UsageFilter, UsagePage, usage
from galerne.metering.schemas import event_fields, totals_fields

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(help="From when: 30d, 12h, 15m, or an ISO time. Default: all.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Latest requests to list.")] = 10,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show what was consumed: sums, sums by model, and the latest requests."""
    if context.invoked_subcommand is not None:
        return
    wanted = UsageFilter(
        model=model, since=None if since is None else moment("--since", since, SystemClock().now(), past=True)
    )

    async def work(database: Database) -> UsagePage:
        async with database.reading() as session:
            return await usage(session, None, wanted, limit)

    page = with_database(data, work)
    if as_json:
        typer.echo(json.dumps(_fields(page), default=_plain))
    else:
        _print(page)


@app.command("export")
def export(
    form: Annotated[
        CostFormat, typer.Option("--format", help="Parquet needs --output and the extra `export`.")
    ] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: standard output.")
    ] = None,
    by: Annotated[str, typer.Option(help="Sum by this: day,model,api_key_id,workspace_id,cost_centre …")] = "day,model",
    since: Annotated[str | None, typer.Option(help="From: 30d, 12h, or an ISO time. Default: all.")] = None,
    until: Annotated[str | None, typer.Option(help="Until before: 1d, or an ISO time.")] = None,
    currency: Annotated[str | None, typer.Option(help="Only this one, such as EUR.")] = None,
    organisation: OrganisationOption = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write what rated use cost as CSV, NDJSON or Parquet, exact and in any length; `galerne rating run` rates it."""
    if as_json and output is None:
        raise typer.BadParameter("--json tells how much was written to --output; rows as JSON are --format ndjson.")
    now = SystemClock().now()
    begin = None if since is None else moment("--since", since, now, past=True)
    end = None if until is None else moment("--until", until, now, past=True)
    groups = cost_groups(by)

    async def work(database: Database) -> int:
        async with database.reading() as session:
            own = None if organisation is None else (await operator_in(session, organisation)).organisation_id
            query = CostQuery(organisation_id=own, group_by=groups, currency=currency, since=begin, until=end)
            return await write_costs(stream_costs(session, query), query, output or sys.stdout.buffer, form)

    rows = with_database(data, work)
    if output is not None:
        written = {"object": "usage.export", "file": str(output), "format": form, "rows": rows}
        typer.echo(json.dumps(written) if as_json else f"{output}: {rows:,} rows")


def _fields(page: UsagePage) -> dict[str, object]:
    return {
        "object": "usage",
        "totals": totals_fields(page.totals),
        "by_model": [{"model": name, **totals_fields(sums)} for name, sums in page.by_model],
        "data": [event_fields(event) for event in page.events],
        "has_more": page.next_after is not None,
    }


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _print(page: UsagePage) -> None:
    if not page.events:
        typer.echo("Nothing was consumed.")
        return
    sums = Table("model", *_right("requests", "input", "cached", "output", "total"), box=None)
    for name, of_model in page.by_model:
        sums.add_row(name, *_numbers(of_model))
    if len(page.by_model) > 1:
        sums.add_row("all", *_numbers(page.totals), style="bold")
    print_table(sums)
    typer.echo()
    latest = Table(
        "started (UTC)", "model", "outcome", *_right("input", "cached", "output", "ttft ms", "total ms"), box=None
    )
    for event in page.events:
        tokens = (event.input_tokens, event.cached_tokens, event.output_tokens)
        ttft = "-" if event.ttft_ms is None else f"{event.ttft_ms:.0f}"
        started = event.started_at.strftime("%Y-%m-%d %H:%M:%S")
        latest.add_row(
            started, event.model, event.outcome, *(f"{count:,}" for count in tokens), ttft, f"{event.total_ms:.0f}"
        )
    print_table(latest)


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _numbers(sums: Totals) -> list[str]:
    counts = (sums.requests, sums.input_tokens, sums.cached_tokens, sums.output_tokens, sums.total_tokens)
    return [f"{count:,}" for count in counts]
