"""Whole runs of a tiny model: learning, going on after a kill, tuning, export."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from galerne.kernel import BadRequest, Conflict, NotFound, SystemClock
from galerne.training import Places, Recipe, load_recipe, read_record, render, run_recipe
from galerne.training.network import build_model, learnt_loss, model_settings
from galerne.training.telemetry import Telemetry, forget_after, read_metrics
from tests.training.small import small_recipe, write_corpora, write_recipe

# A run in a process of its own that slows down once it has a checkpoint, so that the kill finds it in the middle.
_SLOW_RUN = """
import sys, time
from pathlib import Path
from rich.console import Console
from galerne.kernel import SystemClock
from galerne.training import Places, load_recipe, run_recipe
from galerne.training.telemetry import Telemetry
recipe, corpora, out = map(Path, sys.argv[1:])
report = Telemetry.report
def slowly(self, step):
    report(self, step)
    time.sleep(0.2 if (out / "checkpoint.pt").exists() else 0)
Telemetry.report = slowly
run_recipe(load_recipe(recipe), Places(corpora, out), clock=SystemClock(), console=Console(quiet=True))
"""


def _run(recipe: Recipe, places: Places) -> bool:
    return run_recipe(recipe, places, clock=SystemClock(), console=Console(quiet=True))


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    write_corpora(tmp_path / "corpora")
    return tmp_path / "corpora"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(write_corpora(tmp_path / "corpora"))


def test_a_run_learns_and_leaves_its_metrics_its_curve_and_its_record(
    recipe: Recipe, corpora: Path, tmp_path: Path
) -> None:
    assert _run(recipe, Places(corpora, tmp_path / "out"))
    steps = read_metrics(tmp_path / "out")
    assert [step.step for step in steps] == list(range(1, 13))
    assert steps[-1].loss < steps[0].loss - 0.5
    assert (tmp_path / "out/loss.png").read_bytes().startswith(b"\x89PNG")
    assert read_record(tmp_path / "out").tokens == 12 * 4 * 32


@pytest.mark.timeout(60)  # starts a second Python that loads torch, which alone takes seconds on a busy machine
def test_a_run_killed_in_the_middle_goes_on_with_the_same_losses_bit_by_bit(
    recipe: Recipe, corpora: Path, tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    file = write_recipe(tmp_path / "recipe.yaml", _with_frequent_checkpoints(recipe))
    _run(load_recipe(file), Places(corpora, undisturbed))
    arguments = [sys.executable, "-c", _SLOW_RUN, str(file), str(corpora), str(killed)]
    process = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    _wait_for(killed / "checkpoint.pt", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = read_metrics(killed)
    assert 0 < len(before) < 12
    _run(load_recipe(file), Places(corpora, killed))
    expected = [(step.step, step.tokens, step.loss, step.grad_norm) for step in read_metrics(undisturbed)]
    assert [(step.step, step.tokens, step.loss, step.grad_norm) for step in read_metrics(killed)] == expected
    assert _weights(killed) == _weights(undisturbed)


def _with_frequent_checkpoints(recipe: Recipe) -> Recipe:
    return Recipe(**{**{name: getattr(recipe, name) for name in recipe.__struct_fields__}, "checkpoint_minutes": 1e-9})


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, "the run ended by itself"
        time.sleep(0.02)


def _weights(folder: Path) -> str:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    return hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in state.values())).hexdigest()


def test_a_run_that_is_asked_to_stop_keeps_what_it_has(
    recipe: Recipe, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Telemetry.report

    def stop_at_five(self: Telemetry, step: object) -> None:
        report(self, step)
        if step.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Telemetry, "report", stop_at_five)
    assert not _run(recipe, Places(corpora, tmp_path / "out"))
    assert read_record(tmp_path / "out").steps == 5
    assert _run(recipe, Places(corpora, tmp_path / "out"))
    assert [step.step for step in read_metrics(tmp_path / "out")] == list(range(1, 13))


def test_another_recipe_in_the_same_folder_is_refused(recipe: Recipe, corpora: Path, tmp_path: Path) -> None:
    _run(recipe, Places(corpora, tmp_path / "out"))
    other = small_recipe(write_corpora(corpora), optimiser={"muon_rate": 0.01, "adam_rate": 0.005})
    with pytest.raises(Conflict, match="another recipe"):
        _run(other, Places(corpora, tmp_path / "out"))


def test_places_that_do_not_fit_the_recipe_are_refused(recipe: Recipe, corpora: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="--start out"):
        _run(recipe, Places(corpora, tmp_path / "out", start=tmp_path))
    tune = small_recipe(write_corpora(corpora), model=None, tokenizer=None, release=None)
    with pytest.raises(BadRequest, match="--start"):
        _run(tune, Places(corpora, tmp_path / "out"))
    with pytest.raises(NotFound, match="training run"):
        _run(tune, Places(corpora, tmp_path / "out", start=tmp_path))
    with pytest.raises(BadRequest, match="no release"):
        _run(tune, Places(corpora, tmp_path / "out", export=tmp_path / "weights"))


@pytest.mark.timeout(60)  # two runs, an evaluation, an export and its reading back; a few seconds on an idle machine
def test_tuning_starts_from_a_run_and_exports_weights_that_transformers_reads(
    recipe: Recipe, corpora: Path, tmp_path: Path
) -> None:
    hashes = write_corpora(corpora)
    measured = {"path": "lm/text.jsonl", "sha256": hashes["lm/text.jsonl"], "licence": "CC0", "limit": 2}
    tune = small_recipe(
        hashes,
        name="small-tune",
        model=None,
        tokenizer=None,
        batch={"context": 64, "sequences": 2, "pack": "whole", "loss": "answers"},
        budget={"tokens": 4 * 2 * 64},
        evaluation={
            "held_out": [measured],
            "minimal_pairs": {**measured, "path": "eval/pairs.jsonl", "sha256": hashes["eval/pairs.jsonl"]},
            "last_word": {**measured, "path": "eval/words.jsonl", "sha256": hashes["eval/words.jsonl"]},
        },
    )
    _run(recipe, Places(corpora, tmp_path / "base"))
    target = tmp_path / "weights"
    _run(tune, Places(corpora, tmp_path / "tuned", start=tmp_path / "base", export=target))
    record = read_record(tmp_path / "tuned")
    assert record.start is not None
    assert record.start.tokens == 12 * 4 * 32
    assert set(record.scores) == {
        "text, nats per token", "text, bits per byte", "BLiMP accuracy", "last-word accuracy"
    }  # fmt: skip
    _check_manifest(target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == render(messages)
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16)
    with torch.inference_mode():
        logits = model(**tokenizer("The boat", return_tensors="pt")).logits
    assert logits.shape[-1] == 300
    assert logits.isfinite().all()


def _check_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["name"] == "small"
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, expected in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected["sha256"]
    card = (folder / "README.md").read_text()
    for words in ("English only", "small-pretrain", "small-tune", "BLiMP", "CC-BY-SA-4.0"):
        assert words in card


def test_samples_in_one_window_are_read_as_if_each_stood_alone(recipe: Recipe) -> None:
    assert recipe.model is not None
    model = build_model(model_settings(recipe.model, 300), seed=1)
    first, second = torch.randint(20, 300, (1, 9)), torch.randint(20, 300, (1, 14))
    together = torch.cat([first, second], dim=1)
    starts = torch.zeros_like(together, dtype=torch.bool)
    starts[0, [0, 9]] = True
    learnt = ~starts
    alone = sum(learnt_loss(model, ids, torch.ones_like(ids, dtype=torch.bool)) for ids in (first, second))
    assert torch.allclose(learnt_loss(model, together, learnt, starts), alone, rtol=1e-5)


def test_metrics_after_the_checkpoint_and_torn_lines_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    forget_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
