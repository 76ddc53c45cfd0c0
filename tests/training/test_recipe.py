"""Recipes are read strictly, and those that ship can be read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from galerne.kernel import BadRequest, NotFound
from galerne.training import load_recipe, parse_recipe
from galerne.training.corpora import check_files
from galerne.training.recipe import Budget, Schedule
from galerne.training.schedule import progress_share, rate_share
from tests.training.small import plain_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
HASHES = {"lm/text.jsonl": "0" * 64, "chat/sums.jsonl": "1" * 64}


def test_a_recipe_without_faults_is_read() -> None:
    recipe = parse_recipe(yaml.safe_dump(plain_recipe(HASHES)))
    assert recipe.batch.context == 32
    assert recipe.schedule.shape == "wsd"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("learning_rate",), 1, "learning_rate"),
        (("batch", "size"), 4, "size"),
        (("batch", "context"), 0, "batch.context"),
        (("batch", "context"), 4096, "batch.context"),
        (("batch", "pack"), "tight", "batch.pack"),
        (("optimiser", "muon_rate"), "fast", "optimiser.muon_rate"),
        (("model", "kv_heads"), 3, "kv_heads"),
        (("budget",), {}, "budget"),
        (("seed",), None, "seed"),
        (("tokenizer",), None, "tokenizer"),
        (("corpora",), [], "corpora"),
        (("schedule",), {"warmup": 0.6, "decay": 0.6}, "decay"),
        (("dialogues",), {"system": 0.5}, "system_prompts"),
        (("checkpoint_minutes",), 30, "checkpoint_minutes"),
        (("corpora", 0, "sha256"), "abc", "sha256"),
    ],
)
def test_a_wrong_field_is_refused_by_name(path: tuple[Any, ...], value: Any, named: str) -> None:
    raw = plain_recipe(HASHES)
    place: Any = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(BadRequest, match=named):
        parse_recipe(yaml.safe_dump(raw))


def test_what_is_not_yaml_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="not YAML"):
        parse_recipe("a: [")
    with pytest.raises(NotFound, match="no recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_can_be_read(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    check_files(Path(), tuple(corpus for corpus in recipe.corpora if corpus.path.startswith("galerne:")))


def test_the_rate_rises_stays_and_falls_to_its_floor() -> None:
    plan = Schedule(shape="wsd", warmup=0.1, decay=0.4, floor=0.1)
    shares = [rate_share(plan, progress / 100) for progress in range(101)]
    assert shares[5] == pytest.approx(0.5)
    assert shares[10:60] == [1.0] * 50
    assert shares[80] == pytest.approx(0.55)
    assert shares[100] == pytest.approx(0.1)
    cosine = [rate_share(Schedule(shape="cosine", warmup=0.1), progress / 100) for progress in range(10, 101)]
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] == pytest.approx(0.0)


def test_a_budget_ends_with_whatever_is_spent_first() -> None:
    assert progress_share(Budget(tokens=100), tokens=50, elapsed_s=1e9) == 0.5
    assert progress_share(Budget(tokens=100, minutes=1), tokens=10, elapsed_s=30) == 0.5
    assert progress_share(Budget(minutes=1), tokens=10**9, elapsed_s=90) == 1.0
