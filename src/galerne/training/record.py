"""What a run folder says about itself: recipe, how far it came, what it started from, what was measured."""

import json
from pathlib import Path
from typing import Any

import msgspec

from galerne.kernel.errors import NotFound
from galerne.training.atomic import atomic_path
from galerne.training.checkpoint import load_checkpoint
from galerne.training.recipe import Recipe

__all__ = ["Record", "keep_recipe", "keep_scores", "keep_start", "read_record"]

_RECIPE = "recipe.json"
_START = "start.json"
_SCORES = "scores.json"


class Record(msgspec.Struct, frozen=True):
    """One run: `tokens` read in `steps` steps and `training_s` seconds; `scores` by name; `start` is the run before."""

    recipe: Recipe
    steps: int
    tokens: int
    training_s: float
    scores: dict[str, float] = {}
    start: "Record | None" = None


def keep_recipe(folder: Path, recipe: Recipe) -> None:
    """Note which recipe the folder's run follows."""
    _write(folder / _RECIPE, msgspec.to_builtins(recipe))


def keep_start(folder: Path, start: Record) -> None:
    """Note what the run starts from, once: going on later does not change it, even where the earlier run went on."""
    if not (folder / _START).exists():
        _write(folder / _START, msgspec.to_builtins(start))


def keep_scores(folder: Path, scores: dict[str, float]) -> None:
    """Note what was measured on the folder's model."""
    _write(folder / _SCORES, scores)


def read_record(folder: Path) -> Record:
    """The folder's run as of its last checkpoint. Raises `NotFound` when it has none."""
    state = load_checkpoint(folder)
    if state is None or not (folder / _RECIPE).is_file():
        raise NotFound(
            f"{folder} has no checkpoint of a training run yet; wait for its first one, or name another folder."
        )
    recipe = msgspec.convert(json.loads((folder / _RECIPE).read_text(encoding="utf-8")), Recipe)
    start, scores = _read(folder / _START), _read(folder / _SCORES)
    return Record(
        recipe=recipe,
        steps=state["step"],
        tokens=state["tokens"],
        training_s=state["elapsed_s"],
        scores=scores or {},
        start=msgspec.convert(start, Record) if start else None,
    )


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write(path: Path, content: Any) -> None:
    with atomic_path(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
