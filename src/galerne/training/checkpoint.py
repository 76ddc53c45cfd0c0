"""The whole state of a run in one file, written so that a kill at any moment leaves the last whole one."""

import random
from pathlib import Path
from typing import Any

import torch

from galerne.kernel.errors import Conflict
from galerne.training.atomic import atomic_path

__all__ = ["CHECKPOINT", "load_checkpoint", "save_checkpoint"]

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint by `state`, together with the random generators' states."""
    whole = {**state, "torch_rng": torch.get_rng_state(), "python_rng": random.getstate()}
    with atomic_path(folder / CHECKPOINT) as unfinished:
        torch.save(whole, unfinished)


def load_checkpoint(folder: Path, *, recipe_key: str | None = None) -> dict[str, Any] | None:
    """The folder's checkpoint or None.

    With a `recipe_key` it is for going on: the random generators are set back, and `Conflict` is raised when the
    checkpoint is another recipe's.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if recipe_key is None:
        return state
    if state["recipe_key"] != recipe_key:
        raise Conflict(
            f"{folder} holds a run of another recipe or of an older text of this one; give a new --out folder to start "
            "afresh, or put the recipe back to go on.",
            param="out",
        )
    torch.set_rng_state(state["torch_rng"])
    random.setstate(state["python_rng"])
    return state
