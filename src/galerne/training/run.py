"""A recipe from its file to its last step: check, tokenise, train, and hand over to evaluation and export."""

# torch's own annotations are partial.
# pyright: reportUnknownMemberType=false

import hashlib
import json
import random
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from rich.console import Console
from tokenizers import Tokenizer
from torch import nn

from galerne.kernel.clock import Clock
from galerne.kernel.errors import BadRequest, NotFound
from galerne.training.atomic import atomic_path
from galerne.training.checkpoint import load_checkpoint
from galerne.training.corpora import Sample, check_files, mix
from galerne.training.evaluation import evaluate
from galerne.training.export import export_run
from galerne.training.loop import Run, train
from galerne.training.network import SETTINGS, build_model, model_settings, restore_model, weight_count
from galerne.training.recipe import Evaluation, Measured, Recipe, TokenizerPlan
from galerne.training.record import keep_recipe, keep_scores, keep_start, read_record
from galerne.training.telemetry import CURVE, Telemetry, draw_losses, read_metrics
from galerne.training.tokens import load_tokenizer, train_tokenizer
from galerne.training.windows import Windows, make_windows, open_windows, store_windows, windows_key

__all__ = ["Places", "recipe_key", "run_recipe"]

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Places:
    """A run's folders: `corpora` is read, `out` is its own, `start` is the run before it, `export` gets the weights."""

    corpora: Path
    out: Path
    start: Path | None = None
    export: Path | None = None


def run_recipe(recipe: Recipe, places: Places, *, clock: Clock, console: Console) -> bool:
    """Carry out a recipe, going on where an earlier attempt in the same `out` was stopped or killed.

    Returns False when the run was asked to stop (SIGTERM, Ctrl-C) before its end. Raises `BadRequest`, `NotFound` or
    `Conflict` for what does not fit: recipe, files, folders.
    """
    _check_places(recipe, places)
    check_files(places.corpora, recipe.corpora + _measured(recipe.evaluation))
    places.out.mkdir(parents=True, exist_ok=True)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    tokenizer, windows = _prepare(recipe, places, console)
    run = _begin(recipe, places, tokenizer, windows, clock)
    console.print(f"{recipe.name}: {weight_count(run.model):,} weights, {len(windows.ids):,} windows on {run.device}")
    known = load_checkpoint(places.out, recipe_key=run.recipe_key)
    with Telemetry(places.out, console, from_step=known["step"] if known else 0) as telemetry, _stop_request() as asked:
        finished = train(run, report=telemetry.report, stopping=lambda: bool(asked))
    draw_losses(read_metrics(places.out), places.out / CURVE, recipe.name)
    if finished:
        _conclude(run, places, tokenizer, console)
    return finished


def _conclude(run: Run, places: Places, tokenizer: Tokenizer, console: Console) -> None:
    if run.recipe.evaluation is not None:
        console.print("measuring the model")
        scores = evaluate(run.recipe.evaluation, places.corpora, run.model, tokenizer)
        keep_scores(places.out, scores)
        console.print("\n".join(f"  {name}: {value:.3f}" for name, value in scores.items()), highlight=False)
    if places.export is not None:
        export_run(places.out, places.export, run.clock)
        console.print(f"wrote the weights to {places.export}")


def _check_places(recipe: Recipe, places: Places) -> None:
    start = places.start
    if places.export is not None and recipe.release is None:
        raise BadRequest(f"The recipe {recipe.name} has no release, so there is nothing to export.", param="export")
    if recipe.model is None and start is None:
        raise BadRequest(
            f"The recipe {recipe.name} has no model of its own; say with --start which run's model it trains further.",
            param="start",
        )
    if recipe.model is not None and start is not None:
        raise BadRequest(f"The recipe {recipe.name} starts from scratch; leave --start out.", param="start")
    if start is not None and not (start / SETTINGS).is_file():
        raise NotFound(f"{start} is not the folder of a training run: it has no {SETTINGS}.", param="start")


def _measured(evaluation: Evaluation | None) -> tuple[Measured, ...]:
    if evaluation is None:
        return ()
    return evaluation.held_out + tuple(m for m in (evaluation.minimal_pairs, evaluation.last_word) if m is not None)


def _prepare(recipe: Recipe, places: Places, console: Console) -> tuple[Tokenizer, Windows]:
    corpora, out, start = places.corpora, places.out, places.start
    samples: list[Sample] | None = None
    if not (out / TOKENIZER).is_file():
        if start is None:
            samples = mix(corpora, recipe)
            console.print("learning the tokenizer")
        _write(out / TOKENIZER, _tokenizer_text(recipe, start, samples or []))
    tokenizer = load_tokenizer(out / TOKENIZER)
    stored = out / f"windows-{windows_key(recipe, tokenizer)}.npz"
    windows = open_windows(stored)
    if windows is None:
        console.print("tokenising the corpora")
        windows = make_windows(samples or mix(corpora, recipe), tokenizer, recipe.batch)
        store_windows(stored, windows)
    return tokenizer, windows


def _tokenizer_text(recipe: Recipe, start: Path | None, samples: list[Sample]) -> str:
    if start is not None:
        return (start / TOKENIZER).read_text(encoding="utf-8")
    plan = recipe.tokenizer or TokenizerPlan(4096, 1)
    return train_tokenizer(_first_bytes(samples, plan.sample_bytes), plan.vocabulary).to_str()


def _first_bytes(samples: list[Sample], limit: int) -> Iterator[str]:
    spent = 0
    for sample in samples:
        if spent >= limit:
            return
        text = "".join(part for part, _ in sample)
        spent += len(text.encode())
        yield text


def _begin(recipe: Recipe, places: Places, tokenizer: Tokenizer, windows: Windows, clock: Clock) -> Run:
    out, start = places.out, places.start
    settings = _settings(recipe, start, tokenizer)
    _write(out / SETTINGS, json.dumps(settings, indent=2))
    model = build_model(settings, recipe.seed) if start is None else restore_model(start)
    torch.manual_seed(recipe.seed)
    random.seed(recipe.seed)
    keep_recipe(out, recipe)
    if start is not None:
        keep_start(out, read_record(start))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Through the base class: transformers wraps `to` in a way that hides its types.
    nn.Module.to(model, device)
    return Run(recipe, recipe_key(recipe), out, model, windows, clock, device)


def recipe_key(recipe: Recipe) -> str:
    """What a checkpoint must agree on to be gone on with: all of the recipe that decides how the weights change."""
    same = msgspec.structs.replace(recipe, name="", evaluation=None, release=None, threads=None, checkpoint_minutes=5.0)
    return hashlib.sha256(msgspec.json.encode(same)).hexdigest()


def _settings(recipe: Recipe, start: Path | None, tokenizer: Tokenizer) -> dict[str, Any]:
    if recipe.model is not None:
        return model_settings(recipe.model, tokenizer.get_vocab_size())
    return json.loads(((start or Path()) / SETTINGS).read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def _stop_request() -> Generator[list[int]]:
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
