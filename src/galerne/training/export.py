"""The finished weights as a folder that transformers, vLLM and a GGUF converter read, with card, licence and hashes."""

# torch's own annotations are partial.
# pyright: reportUnknownMemberType=false

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] - partial types
from torch import nn

from galerne.kernel.clock import Clock
from galerne.kernel.errors import BadRequest, Conflict
from galerne.training.card import attribution, corpora_of, model_card
from galerne.training.dialogue import chat_template
from galerne.training.network import restore_model, weight_count
from galerne.training.recipe import Release
from galerne.training.record import Record, read_record
from galerne.training.tokens import BOS, EOS, PAD, load_tokenizer, special_tokens_map, token_id, tokenizer_settings

__all__ = ["export_run"]

_SETTINGS = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "intermediate_size", "hidden_act", "max_position_embeddings", "rope_parameters", "rms_norm_eps",
    "sliding_window", "tie_word_embeddings", "attention_dropout", "initializer_range", "bos_token_id", "eos_token_id",
    "pad_token_id", "use_cache",
)  # fmt: skip
MANIFEST = "manifest.json"
_LICENCES = {"CC-BY-SA-4.0": "CC-BY-SA-4.0.txt"}


def export_run(run: Path, target: Path, clock: Clock) -> None:
    """Write the run's last checkpoint to the folder `target`, in bfloat16; an earlier export there is replaced.

    Raises `BadRequest` when the run's recipe has no `release`, `Conflict` when `target` holds something else.
    """
    record = read_record(run)
    release = record.recipe.release
    if release is None:
        raise BadRequest(f"The recipe {record.recipe.name} has no release: give it a name, a version and a licence.")
    if target.exists() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise Conflict(f"{target} holds something that is not an exported model; name an empty or new folder.")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write_model(run, record, release, unfinished)
    _write_manifest(record, release, unfinished, clock)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.replace(target)


def _write_model(run: Path, record: Record, release: Release, target: Path) -> None:
    model = restore_model(run).bfloat16()
    _write_settings(model.config.to_dict(), target)
    save_file(_owned_weights(model), target / "model.safetensors", metadata={"format": "pt"})
    # safetensors writes for the owner alone; weights are there to be read by other processes.
    (target / "model.safetensors").chmod(0o644)
    tokenizer = load_tokenizer(run / "tokenizer.json")
    context = int(model.config.max_position_embeddings)
    vocabulary = tokenizer.get_vocab_size()
    texts = {
        "tokenizer.json": tokenizer.to_str(pretty=True),
        "tokenizer_config.json": _json(tokenizer_settings(context)),
        "special_tokens_map.json": special_tokens_map(),
        "chat_template.jinja": chat_template(),
        "generation_config.json": _json(_generation_settings()),
        "README.md": model_card(record, release, weights=weight_count(model), vocabulary=vocabulary),
        "ATTRIBUTION.md": attribution(record),
        "LICENSE": _licence_text(release.licence),
    }
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")


def _write_settings(settings: dict[str, Any], target: Path) -> None:
    wanted = {key: value for key, value in settings.items() if key in _SETTINGS}
    # Readers before transformers 5 look for rope_theta at the top.
    rope = {"rope_theta": settings["rope_parameters"]["rope_theta"]}
    whole = {"architectures": ["MistralForCausalLM"], **wanted, **rope, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    (target / "config.json").write_text(_json(whole), encoding="utf-8")


def _owned_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    # The output layer is the embedding: it is stored once.
    return {name: weight.detach().contiguous() for name, weight in model.named_parameters() if name != "lm_head.weight"}


def _generation_settings() -> dict[str, Any]:
    # Little randomness, or so small a model wanders off; no penalty on repetition, because calls repeat the question.
    return {
        "bos_token_id": token_id(BOS),
        "eos_token_id": token_id(EOS),
        "pad_token_id": token_id(PAD),
        "do_sample": True,
        "temperature": 0.3,
        "top_p": 0.9,
    }


def _licence_text(licence: str) -> str:
    if licence not in _LICENCES:
        raise BadRequest(f"release.licence {licence!r} has no text in this package; known: {', '.join(_LICENCES)}.")
    return (files("galerne.training") / "data" / _LICENCES[licence]).read_text(encoding="utf-8")


def _write_manifest(record: Record, release: Release, target: Path, clock: Clock) -> None:
    manifest = {
        "name": release.name,
        "version": release.version,
        "licence": release.licence,
        "created_at": clock.now().isoformat(timespec="seconds"),
        "files": {path.name: _fingerprint(path) for path in sorted(target.iterdir())},
        "training_data": _by_licence(record),
        "runs": _runs(record),
    }
    (target / MANIFEST).write_text(_json(manifest), encoding="utf-8")


def _fingerprint(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _by_licence(record: Record) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for run, corpus in corpora_of(record):
        entry = {
            "run": run,
            "path": corpus.path,
            "sha256": corpus.sha256,
            "repeat": corpus.repeat,
            "origin": corpus.origin,
        }
        grouped.setdefault(corpus.licence, []).append(entry)
    return grouped


def _runs(record: Record) -> list[dict[str, Any]]:
    before = _runs(record.start) if record.start else []
    this = {
        "recipe": msgspec.to_builtins(record.recipe),
        "tokens": record.tokens,
        "steps": record.steps,
        "training_s": round(record.training_s),
        "scores": record.scores,
    }
    return [*before, this]


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
