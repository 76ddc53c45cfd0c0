"""`galerne train`: carries out a training recipe."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from galerne.kernel.clock import SystemClock
from galerne.kernel.errors import GalerneError
from galerne.training.recipe import load_recipe
from galerne.training.run import run_recipe

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument()],
    corpora: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    start: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Train."""
    console = Console()
    try:
        run_recipe(load_recipe(recipe), corpora=corpora, out=out, start=start, clock=SystemClock(), console=console)
    except GalerneError as wrong:
        console.print(wrong.message)
        raise typer.Exit(1) from wrong


if __name__ == "__main__":
    app()
