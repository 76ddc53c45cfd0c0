"""`galerne serve`: everything in one place, and the lines that a person needs to try it."""

from typing import Annotated

import typer
import uvloop

from galerne.apps.commands.options import DataFolder
from galerne.apps.listening import Listening
from galerne.apps.server import ServedParts, serve_forever
from galerne.kernel import Settings, configure_logs

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others reach any but loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    engines: Annotated[bool, typer.Option(help="Run the embedded models, or serve added ones only.")] = True,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes that answer; one uses one core.")] = 1,
    duties: Annotated[bool, typer.Option(help="Do what time brings about too, as `galerne worker`.")] = True,
    data: DataFolder = None,
) -> None:
    """Serve everything in one place: API, engines, database.

    Prints where it listens, the administrator's key (once, at the first start) and a line to try.
    """
    settings = Settings().with_data(data)
    configure_logs(settings.log_level)
    where = Listening(host, port)
    parts = ServedParts(engines=engines, workers=workers, duties=duties)
    uvloop.run(serve_forever(settings, where, echo=typer.echo, parts=parts))
