"""`galerne gateway`: inference alone, as many processes of it as are needed, beside one `galerne serve`."""

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from galerne.apps.commands.options import DataFolder
from galerne.apps.listening import Listening
from galerne.apps.server import serve_gateway, serve_worker
from galerne.kernel import Settings, configure_logs

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def gateway(
    host: Annotated[str, typer.Option(help="Address to listen on; others reach any but loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    data: DataFolder = None,
    worker_of: Annotated[Path | None, typer.Option(hidden=True)] = None,
    worker: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Serve inference alone: both dialects' paths, the models list, health and metrics.

    It runs no engines and changes no schema: `galerne serve` on the same database does. Several may share a folder.
    """
    settings = Settings().with_data(data)
    configure_logs(settings.log_level)
    where = Listening(host, port)
    if worker_of is not None:
        uvloop.run(serve_worker(settings, where, worker_of, worker))
    else:
        uvloop.run(serve_gateway(settings, where, echo=typer.echo))
