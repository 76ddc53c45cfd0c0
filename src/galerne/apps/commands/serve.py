"""`galerne serve`: everything in one place, and the lines that a person needs to try it."""

from typing import Annotated

import typer
import uvloop

from galerne.apps.commands.opened import DataFolder
from galerne.apps.server import Listening, serve_forever
from galerne.kernel import Settings, configure_logs

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others reach any but loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    engines: Annotated[bool, typer.Option(help="Run the embedded models, or serve added ones only.")] = True,
    data: DataFolder = None,
) -> None:
    """Serve everything in one place: API, engines, database.

    Prints where it listens, the administrator's key (once, at the first start) and a line to try.
    """
    settings = Settings().with_data(data)
    configure_logs(settings.log_level)
    uvloop.run(serve_forever(settings, Listening(host, port), echo=typer.echo, with_engines=engines))
