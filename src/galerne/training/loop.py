"""The training loop: steps, checkpoints, going on after a kill. Knows no corpora and writes no weights for release."""

# torch's own annotations are partial.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MistralForCausalLM

from galerne.kernel.clock import Clock
from galerne.kernel.errors import invariant
from galerne.training.checkpoint import load_checkpoint, save_checkpoint
from galerne.training.network import build_optimisers, learnt_loss, set_rate
from galerne.training.recipe import Recipe
from galerne.training.schedule import progress_share, rate_share
from galerne.training.windows import Windows, windows_of_step

__all__ = ["Run", "StepReport", "train"]


@dataclass(frozen=True)
class StepReport:
    """One optimiser step: `loss` in nats per learnt token, `tokens` since the start, times in seconds of training."""

    step: int
    tokens: int
    loss: float
    rate_share: float
    grad_norm: float
    elapsed_s: float
    progress: float


@dataclass
class Run:
    """A run under way: the model with its optimisers, and how far it has come."""

    recipe: Recipe
    recipe_key: str
    folder: Path
    model: MistralForCausalLM
    windows: Windows
    clock: Clock
    device: str = "cpu"
    step: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0


def train(run: Run, *, report: Callable[[StepReport], None], stopping: Callable[[], bool]) -> bool:
    """Train until the budget is spent (True) or `stopping` says so (False); goes on from the folder's checkpoint.

    Every step is a function of the checkpoint alone, so a run that was killed repeats the steps it had lost bit by bit.
    Raises `InvariantViolated` when the loss is no longer a number.
    """
    optimisers = build_optimisers(run.model, run.recipe.optimiser)
    _go_on(run, optimisers)
    last_step_at = last_saved_at = run.clock.monotonic()
    run.model.train()
    while (progress := _progress(run)) < 1:
        if stopping():
            _save(run, optimisers)
            return False
        share = rate_share(run.recipe.schedule, progress)
        set_rate(optimisers, run.recipe.optimiser, share)
        loss, norm = _step(run, optimisers)
        now = run.clock.monotonic()
        run.elapsed_s, last_step_at = run.elapsed_s + now - last_step_at, now
        report(StepReport(run.step, run.tokens, loss, share, norm, run.elapsed_s, _progress(run)))
        if now - last_saved_at >= run.recipe.checkpoint_minutes * 60:
            _save(run, optimisers)
            last_saved_at = now
    _save(run, optimisers)
    return True


def _progress(run: Run) -> float:
    return progress_share(run.recipe.budget, tokens=run.tokens, elapsed_s=run.elapsed_s)


def _step(run: Run, optimisers: list[torch.optim.Optimizer]) -> tuple[float, float]:
    batch = run.recipe.batch
    per_step = batch.sequences * batch.accumulate
    rows = windows_of_step(run.step, per_step=per_step, total=len(run.windows.ids), seed=run.recipe.seed)
    ids = torch.from_numpy(run.windows.ids[rows].astype(np.int64)).to(run.device)
    learnt = torch.from_numpy(run.windows.learnt[rows]).to(run.device)
    starts = torch.from_numpy(run.windows.starts[rows]).to(run.device) if batch.pack == "whole" else None
    counted = max(1, int(learnt[:, 1:].sum()))
    total = 0.0
    for begin in range(0, per_step, batch.sequences):
        part = slice(begin, begin + batch.sequences)
        with _autocast(run):
            loss = learnt_loss(run.model, ids[part], learnt[part], None if starts is None else starts[part]) / counted
        loss.backward()
        total += loss.item()
    invariant(np.isfinite(total).item(), f"the loss at step {run.step} is {total}; lower the learning rates")
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.recipe.optimiser.clip_norm)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    run.step += 1
    run.tokens += per_step * batch.context
    return total, float(norm)


def _autocast(run: Run) -> Any:
    return torch.autocast(run.device, dtype=torch.bfloat16) if run.recipe.precision == "bf16" else nullcontext()


def _save(run: Run, optimisers: list[torch.optim.Optimizer]) -> None:
    save_checkpoint(
        run.folder,
        {
            "recipe_key": run.recipe_key,
            "model": run.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            "step": run.step,
            "tokens": run.tokens,
            "elapsed_s": run.elapsed_s,
        },
    )


def _go_on(run: Run, optimisers: list[torch.optim.Optimizer]) -> None:
    state = load_checkpoint(run.folder, recipe_key=run.recipe_key)
    if state is None:
        return
    run.model.load_state_dict(state["model"])
    for optimiser, stored in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(stored)
    run.step, run.tokens, run.elapsed_s = state["step"], state["tokens"], state["elapsed_s"]
