"""A recipe and corpora so small that a run takes a second."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import yaml

from galerne.training import Recipe, parse_recipe

_WORDS = [
    "the",
    "a",
    "boat",
    "wind",
    "sea",
    "harbour",
    "old",
    "small",
    "dog",
    "cat",
    "went",
    "came",
    "saw",
    "was",
    "red",
    "blue",
    "house",
    "and",
    "to",
    "of",
    "in",
    "night",
    "day",
]


def write_corpora(root: Path) -> dict[str, str]:
    """Two files of made-up English; what comes back is their sha256 by path."""
    chance = random.Random(7)
    texts = [{"text": " ".join(chance.choices(_WORDS, k=120)).capitalize() + "."} for _ in range(60)]
    talks = [
        {
            "messages": [
                {"role": "user", "content": f"What is {a} + {b}?"},
                {"role": "assistant", "content": f"{a} + {b} = {a + b}."},
            ]
        }
        for a in range(8)
        for b in range(8)
    ]
    pairs = [{"good": "The boat was red.", "bad": "Boat red the was."}] * 4
    words = [{"context": "The old dog saw the small", "target": "cat"}] * 2
    contents = {"lm/text.jsonl": texts, "chat/sums.jsonl": talks, "eval/pairs.jsonl": pairs, "eval/words.jsonl": words}
    return {path: _write(root / path, records) for path, records in contents.items()}


def plain_recipe(hashes: dict[str, str]) -> dict[str, Any]:
    """A recipe from scratch as YAML would give it: 12 steps of 4 windows of 32 tokens."""
    return {
        "name": "small-pretrain",
        "seed": 3,
        "threads": 1,
        "model": {
            "width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_width": 16, "feed_forward": 48, "context": 128,
        },
        "tokenizer": {"vocabulary": 300, "sample_bytes": 20_000},
        "batch": {"context": 32, "sequences": 2, "accumulate": 2},
        "budget": {"tokens": 12 * 4 * 32},
        "optimiser": {"muon_rate": 0.02, "adam_rate": 0.005},
        "release": {"name": "small", "version": "1", "licence": "CC-BY-SA-4.0"},
        "corpora": [
            {"path": "lm/text.jsonl", "sha256": hashes["lm/text.jsonl"], "licence": "CC0", "origin": "made up",
             "fim": 0.2},
            {"path": "chat/sums.jsonl", "sha256": hashes["chat/sums.jsonl"], "licence": "CC0", "origin": "made up",
             "kind": "dialogues"},
        ],
    }  # fmt: skip


def small_recipe(hashes: dict[str, str], **changes: Any) -> Recipe:
    """The plain recipe with some of its top fields replaced."""
    return parse_recipe(yaml.safe_dump({**plain_recipe(hashes), **changes}))


def write_recipe(path: Path, recipe: Recipe) -> Path:
    """The recipe as a file."""
    path.write_text(yaml.safe_dump(msgspec.to_builtins(recipe)))
    return path


def _write(path: Path, records: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return hashlib.sha256(path.read_bytes()).hexdigest()
