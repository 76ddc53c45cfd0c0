"""`galerne models`: what the catalogue holds, and how another server's model joins it."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.apps.commands.opened import in_transaction, print_table
from galerne.apps.commands.options import AsJson, DataFolder
from galerne.apps.commands.replicas import health
from galerne.governance import SYSTEM
from galerne.kernel import BadRequest, Settings, SystemClock
from galerne.models import (
    ExternalModel,
    Model,
    ModelKind,
    add_external,
    embedded_models,
    find_model,
    list_models,
    publish_embedded,
    remove_address,
    remove_model,
    verify_weights,
)

app = typer.Typer(
    help="List, show, add, remove and verify models, see how they do.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

app.command()(health)


@app.command("list")
def list_(data: DataFolder = None, as_json: AsJson = False) -> None:
    """List the models that can be asked for."""
    models = in_transaction(data, _catalogue, create=True)
    if as_json:
        typer.echo(json.dumps([_fields(model) for model in models]))
        return
    table = Table("name", "kind", "version", "runs on", "zones", "licence", box=None)
    for model in models:
        zones = ", ".join(sorted(model.zones))
        table.add_row(model.id, model.kind, model.version, _runs_on(model), zones, model.licence)
    print_table(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Id or alias.")], data: DataFolder = None, as_json: AsJson = False
) -> None:
    """Show one model."""

    async def work(session: AsyncSession) -> Model:
        await _catalogue(session)
        return await find_model(session, name)

    fields = _fields(in_transaction(data, work, create=True))
    if as_json:
        typer.echo(json.dumps(fields))
        return
    addresses = cast(list[dict[str, object]], fields.pop("addresses"))
    for field, value in fields.items():
        typer.echo(f"{field:16} {', '.join(map(str, cast(list[str], value))) if isinstance(value, list) else value}")
    for address in addresses:
        said = (f"{field} {value}" for field, value in address.items() if field != "url" and value is not None)
        typer.echo(f"{'address':16} {address['url']} ({', '.join(said)})")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name that callers will use.")],
    url: Annotated[
        str | None, typer.Option(help="Address of the server, such as http://gpu1:8000/v1.", show_default=False)
    ] = None,
    engine: Annotated[
        str, typer.Option(help="How it is spoken to; 'openai' is any OpenAI-compatible server.")
    ] = "openai",
    upstream_model: Annotated[str | None, typer.Option(help="What that server calls the model. Default: NAME.")] = None,
    adapter_of: Annotated[
        str | None, typer.Option(help="The model that this one is an adapter (LoRA) of; it runs where that does.")
    ] = None,
    kind: Annotated[ModelKind | None, typer.Option(help="What it is for. Default: chat, or its base's.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable of the server that holds its key.")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File that holds its key.")] = None,
    parallel: Annotated[int | None, typer.Option(help="Most requests that this address takes at once.")] = None,
    context_length: Annotated[int | None, typer.Option(help="Tokens of prompt and answer together.")] = None,
    zone: Annotated[str | None, typer.Option(help="Where it stands: eu, fr … Default: on-prem.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights. Default: unknown.")] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Register a model that another server runs (vLLM, SGLang, Ollama, llama.cpp, TGI …).

    Or an adapter of one. Once more with another --url adds an address; with the same, changes what is said.
    """
    if (url is None) == (adapter_of is None):
        raise typer.BadParameter("give one of --url and --adapter-of")
    if engine != "openai":
        raise BadRequest(f"--engine {engine}: only 'openai' can be added; embedded models come with the installation.")
    external = ExternalModel(
        name=name,
        url=url,
        adapter_of=adapter_of,
        upstream_model=upstream_model,
        kind=kind,
        api_key_env=api_key_env,
        api_key_file=None if api_key_file is None else str(api_key_file.expanduser().resolve()),
        most_parallel=parallel,
        context_length=context_length,
        zone=zone,
        licence=licence,
    )

    async def work(session: AsyncSession) -> Model:
        return await add_external(session, SYSTEM, external, SystemClock())

    model = in_transaction(data, work, create=True)
    typer.echo(json.dumps(_fields(model)) if as_json else f"added {model.id}: {_runs_on(model)}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Its name.")],
    url: Annotated[str | None, typer.Option(help="Remove this address of it alone.", show_default=False)] = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Take another server's model, or one address of it, out of the catalogue."""

    async def work(session: AsyncSession) -> Model:
        if url is not None:
            return await remove_address(session, SYSTEM, name, url, SystemClock())
        return await remove_model(session, SYSTEM, name, SystemClock())

    model = in_transaction(data, work, create=True)
    left = "" if url is None else f" from {url}: it runs on {_runs_on(model)}"
    typer.echo(json.dumps(_fields(model)) if as_json else f"removed {model.id}{left}")


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Check the shipped weights against their manifests; exit 1 if a file is missing or changed."""
    checks = [
        {"model": each.model.id, "file": check.name, "problem": check.problem}
        for each in embedded_models("")
        if (each.folder / "manifest.json").exists()
        for check in verify_weights(each.folder)
    ]
    if as_json:
        typer.echo(json.dumps(checks))
    else:
        for check in checks:
            typer.echo(f"{check['model']}/{check['file']}: {check['problem'] or 'ok'}")
    if any(check["problem"] for check in checks):
        raise typer.Exit(1)


async def _catalogue(session: AsyncSession) -> list[Model]:
    # The embedded models are published at each start; doing it here too shows them before the first one.
    settings = Settings()
    await publish_embedded(session, [each.model for each in embedded_models(settings.zone)], SystemClock())
    return await list_models(session)


def _runs_on(model: Model) -> str:
    where = ", ".join(address.url for address in model.addresses) or model.engine
    return where if model.adapter_of is None else f"{model.adapter_of} at {where}"


def _fields(model: Model) -> dict[str, object]:
    shown = {name: _plain(value) for name, value in asdict(model).items() if name not in ("zone", "addresses")}
    addresses = [{name: _plain(value) for name, value in asdict(address).items()} for address in model.addresses]
    return {**shown, "zones": sorted(model.zones), "addresses": addresses}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (tuple, frozenset)):
        return sorted(cast(tuple[str, ...], value))
    return value
