"""Knows the command `galerne engine`: one model, one process, one socket."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from galerne.engines.llamacpp import EngineOptions, serve
from galerne.kernel.errors import GalerneError
from galerne.kernel.logs import configure_logs
from galerne.kernel.settings import Settings

app = typer.Typer(
    help="Runs one model as a process of its own.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


class Weights(StrEnum):
    """How exactly to keep the weights of a model that is converted."""

    F32 = "f32"
    F16 = "f16"
    Q8_0 = "q8_0"


@app.callback()
def engine() -> None:
    """Engines; `llamacpp` is the embedded one."""


@app.command()
def llamacpp(
    model: Annotated[Path, typer.Option(help="Folder of a Hugging Face model, or a .gguf file.")],
    socket: Annotated[Path, typer.Option(help="Unix socket to listen on.")],
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Requests that run at once; others wait.")] = 8,
    context: Annotated[int | None, typer.Option(min=16, help="Tokens that one request may use.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to compute with.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for converted models.")] = None,
    name: Annotated[str | None, typer.Option(help="What the model calls itself; default: the folder's name.")] = None,
    weights: Annotated[Weights, typer.Option(help="How exactly to keep converted weights.")] = Weights.F16,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="The model embeds text.")] = False,
    follow_stdin: Annotated[bool, typer.Option("--follow-stdin", hidden=True)] = False,
) -> None:
    """Serves MODEL with llama.cpp in OpenAI's protocol on a unix socket."""
    settings = Settings()
    configure_logs(settings.log_level)
    options = EngineOptions(
        model=model,
        socket=socket,
        cache=cache or settings.data / "cache" / "gguf",
        name=name,
        parallel=parallel,
        context=context,
        threads=threads,
        embeddings=embeddings,
        precision=weights.value,
        follow_stdin=follow_stdin,
    )
    try:
        serve(options)
    except GalerneError as error:
        typer.echo(f"galerne engine: {error.message}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
