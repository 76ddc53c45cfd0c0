"""What a recipe file may say: the one place where a training run is described, read strictly."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
import yaml

from galerne.kernel.errors import BadRequest, NotFound

__all__ = [
    "Batch",
    "Budget",
    "Corpus",
    "Dialogues",
    "Evaluation",
    "Measured",
    "ModelShape",
    "Optimiser",
    "Recipe",
    "Release",
    "Schedule",
    "TokenizerPlan",
    "load_recipe",
    "parse_recipe",
]

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class ModelShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The Mistral architecture's sizes; `context` is the longest sequence that the model declares, in tokens."""

    width: Count
    layers: Count
    heads: Count
    kv_heads: Count
    head_width: Count
    feed_forward: Count
    context: Count
    rope_theta: Positive = 10_000.0


class TokenizerPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A byte-level BPE of `vocabulary` entries, learnt from the first `sample_bytes` of the shuffled mix."""

    vocabulary: Annotated[int, msgspec.Meta(ge=280, le=65_535)]
    sample_bytes: Count


class Corpus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the mix.

    `path` is relative to the corpora folder, or `galerne:NAME` for a file inside this package. `repeat` is how many
    times each record is used; below 1 it is the share of the records that is used; for `kind: scenes`, a table of
    `galerne.training.scenes`, how many dialogues each tool gets. `fim` is the share of the texts that
    becomes fill-in-the-middle samples. `origin` says where the text comes from, for the model card.
    """

    path: str
    sha256: Sha256
    licence: str
    origin: str
    kind: Literal["text", "dialogues", "scenes"] = "text"
    repeat: Positive = 1.0
    fim: Share = 0.0


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One optimiser step sees `sequences * accumulate` windows of `context` tokens.

    `pack: stream` lays all samples end to end and cuts; `pack: whole` fits whole samples into windows, where none sees
    another. `loss: all` learns every token, `loss: answers` only what the assistant says (texts count in full).
    """

    context: Count
    sequences: Count
    accumulate: Count = 1
    pack: Literal["stream", "whole"] = "stream"
    loss: Literal["all", "answers"] = "all"


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The run ends at `tokens` or after `minutes` of training, whichever comes first; the decay knows both."""

    tokens: Count | None = None
    minutes: Positive | None = None


class Optimiser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Muon (Jordan et al., 2024) on the matrices of the layers, AdamW on embeddings and norms."""

    muon_rate: Positive
    adam_rate: Positive
    momentum: Share = 0.95
    weight_decay: Share = 0.01
    clip_norm: Positive = 1.0


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The learning rate over the run: `warmup` and `decay` are shares of it, `floor` of the rate."""

    shape: Literal["wsd", "cosine"] = "wsd"
    warmup: Share = 0.02
    decay: Share = 0.3
    floor: Share = 0.0


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that measures the model and is never trained on; `limit` caps the records that are read."""

    path: str
    sha256: Sha256
    licence: str
    limit: Count | None = None


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is measured at the end of a run."""

    held_out: tuple[Measured, ...] = ()
    minimal_pairs: Measured | None = None
    last_word: Measured | None = None


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name under which the finished weights go out."""

    name: str
    version: str
    licence: str


class Dialogues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the dialogues of the mix are varied.

    `chain` is the share of one-question dialogues without tools that is continued with the next one of the mix, so that
    the model learns to answer the last question. `system` is the share that gets one of the `system_prompts` before it,
    so that a system prompt is nothing new to it.
    """

    chain: Share = 0.0
    system: Share = 0.0
    system_prompts: tuple[str, ...] = ()


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole run. A run from scratch gives `model` and `tokenizer`; one that starts from another leaves them out."""

    name: str
    seed: int
    corpora: Annotated[tuple[Corpus, ...], msgspec.Meta(min_length=1)]
    batch: Batch
    budget: Budget
    optimiser: Optimiser
    schedule: Schedule = Schedule()
    dialogues: Dialogues = Dialogues()
    model: ModelShape | None = None
    tokenizer: TokenizerPlan | None = None
    release: Release | None = None
    evaluation: Evaluation | None = None
    precision: Literal["bf16", "fp32"] = "bf16"
    threads: Count | None = None
    checkpoint_minutes: Annotated[float, msgspec.Meta(gt=0, le=10)] = 5.0


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises `NotFound` when there is none, `BadRequest` naming the field when it is wrong."""
    if not path.is_file():
        raise NotFound(
            f"There is no recipe at {path}; give the path of a YAML file such as recipes/brise-pretrain.yaml."
        )
    return parse_recipe(path.read_text(encoding="utf-8"), where=str(path))


def parse_recipe(text: str, *, where: str = "recipe") -> Recipe:
    """Read a recipe's YAML. Raises `BadRequest` naming the field that is unknown, missing or out of range."""
    try:
        recipe = msgspec.convert(yaml.safe_load(text), Recipe)
    except yaml.YAMLError as wrong:
        raise BadRequest(f"{where} is not YAML: {wrong}") from wrong
    except msgspec.ValidationError as wrong:
        raise BadRequest(f"{where}: {wrong}. Correct that field; galerne.training.recipe describes them.") from wrong
    _check(recipe, where)
    return recipe


def _check(recipe: Recipe, where: str) -> None:
    if recipe.budget.tokens is None and recipe.budget.minutes is None:
        raise BadRequest(f"{where}: budget needs tokens or minutes, or the run would never end.", param="budget")
    if (recipe.model is None) != (recipe.tokenizer is None):
        raise BadRequest(
            f"{where}: model and tokenizer go together: give both to start from scratch, neither to start from a run.",
            param="model" if recipe.model is None else "tokenizer",
        )
    shape = recipe.model
    if shape is not None and shape.heads % shape.kv_heads:
        raise BadRequest(
            f"{where}: model.heads ({shape.heads}) must be a multiple of model.kv_heads ({shape.kv_heads}).",
            param="model.kv_heads",
        )
    if shape is not None and recipe.batch.context > shape.context:
        raise BadRequest(
            f"{where}: batch.context ({recipe.batch.context}) is longer than model.context ({shape.context}).",
            param="batch.context",
        )
    if recipe.dialogues.system and not recipe.dialogues.system_prompts:
        raise BadRequest(
            f"{where}: dialogues.system is above 0, but there are no dialogues.system_prompts.",
            param="dialogues.system_prompts",
        )
    if recipe.schedule.warmup + recipe.schedule.decay > 1:
        raise BadRequest(f"{where}: schedule.warmup and schedule.decay add up to more than 1.", param="schedule.decay")
