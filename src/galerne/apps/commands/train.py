"""`galerne train`: carries out a training recipe. Knows the command line, and nothing of training."""

import importlib
import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from galerne.kernel.clock import SystemClock
from galerne.kernel.errors import GalerneError, Unavailable

__all__ = ["app", "train"]

_NEEDED = ("torch", "transformers", "tokenizers", "yaml", "matplotlib")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file such as recipes/brise-pretrain.yaml.")],
    corpora: Annotated[
        Path, typer.Option(help="Folder with the text that the recipe names; every file is checked by hash.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of this run: checkpoints, metrics.jsonl, loss.png. Give it again to go on.")
    ],
    start: Annotated[
        Path | None, typer.Option(help="Folder of the run whose model is trained further (tuning).")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Folder that gets the finished weights, card and manifest.")
    ] = None,
) -> None:
    """Pre-train or tune a model as RECIPE says.

    The run writes a checkpoint every few minutes. Killed or stopped, it goes on where it was when the same command is
    given again. It needs torch and what else the extra named train installs.

    The embedded model is made by brise-pretrain.yaml, then brise-tune.yaml, then brise-finish.yaml, for example:

      galerne train recipes/brise-pretrain.yaml --corpora TEXT --out runs/pretrain

      galerne train recipes/brise-tune.yaml --corpora TEXT --out runs/tune --start runs/pretrain --export runs/brise
    """
    console = Console()
    try:
        _check_extra()
        # Late, because torch is an optional extra and takes seconds to load: without it there is one line to read.
        training = importlib.import_module("galerne.training")
        places = training.Places(corpora=corpora, out=out, start=start, export=export)
        finished = training.run_recipe(training.load_recipe(recipe), places, clock=SystemClock(), console=console)
    except GalerneError as refused:
        Console(stderr=True).print(refused.message, style="red", highlight=False, markup=False)
        raise typer.Exit(1) from refused
    if not finished:
        console.print("stopped; give the same command again to go on")
        raise typer.Exit(1)


def _check_extra() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Unavailable(f'Training needs {", ".join(missing)}: pip install "galerne[train]", then try again.')
