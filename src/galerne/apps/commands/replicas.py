"""`galerne models health`: how a running server sees the places where models run; it is asked over HTTP."""

import asyncio
import json
from contextlib import closing
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Column, Table

from galerne.apps.commands.opened import print_table
from galerne.apps.commands.options import AsJson
from galerne.kernel import BadRequest, GalerneError, Unavailable
from galerne.kernel.http_client import Client, Lost, NotConnected, request_to

_LIMIT_S = 10.0
_LARGEST = 16 * 1024 * 1024
_PATH = "/v1/admin/replicas"


class NotAllowed(GalerneError):
    """The server refused to say."""

    code = "server_refused"


class _Refusal(msgspec.Struct):
    message: str


def health(
    server: Annotated[
        str, typer.Option(help="Address of a `galerne serve`; https beyond this machine: the key goes there.")
    ] = "http://127.0.0.1:8000",
    key: Annotated[
        str, typer.Option(envvar="GALERNE_ADMIN_KEY", prompt="API key", hide_input=True, help="With models:manage.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show where models run and how each place is doing, as the server's process that answers sees it.

    Each process keeps its own book: with --workers another one may see it otherwise; all are in /metrics.
    """
    found = asyncio.run(_ask(server.rstrip("/"), key))
    if as_json:
        typer.echo(json.dumps(found))
        return
    numbers = [Column(name, justify="right") for name in ("requests", "failures")]
    table = Table("replica", "models", "address", "zone", "state", *numbers, "last failure", box=None)
    for row in found["data"]:
        state = (row["state"] or "not asked yet") if row["ready"] else "not ready"
        counts = str(row["requests"]), str(row["failures"])
        names = (row["id"], ", ".join(row["models"]), row["address"] or "engine", row["zone"])
        table.add_row(*names, state, *counts, row["last_error"] or row["last_failure"] or "-")
    print_table(table)
    typer.echo(f"As process {found['process']} of {server} sees them, over the last 10 to 20 seconds.")


async def _ask(server: str, key: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}", "accept": "application/json", "connection": "close"}
    try:
        address, head = request_to("GET", server + _PATH, headers)
    except ValueError:
        raise BadRequest("--server is an address such as http://127.0.0.1:8000, --key has no blanks.") from None
    try:
        async with asyncio.timeout(_LIMIT_S):
            with closing(await Client().send(address, head, None, _LIMIT_S)) as answer:
                status, raw = answer.status, await answer.read_all(_LARGEST)
    except (NotConnected, Lost, TimeoutError):
        raise Unavailable(f"No server answers at {server}.") from None
    try:
        if status != 200:
            raise NotAllowed(f"{server}: {msgspec.json.decode(raw or b'', type=_Refusal).message}")
        return msgspec.json.decode(raw or b"")
    except msgspec.MsgspecError:
        raise Unavailable(f"What answers at {server} is no `galerne serve`.") from None
