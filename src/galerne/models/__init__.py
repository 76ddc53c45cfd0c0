"""The catalogue: which models there are, which version a name means, where their weights lie, under which licence."""

from galerne.models.catalogue import Address, EngineKind, ExternalModel, Model, ModelKind
from galerne.models.embedded import EmbeddedModel, embedded_models
from galerne.models.finding import find_model_script
from galerne.models.manifest import Manifest, read_manifest, verify_weights
from galerne.models.service import (
    add_external,
    find_model,
    list_models,
    publish_embedded,
    remove_address,
    remove_model,
)

__all__ = [
    "Address",
    "EmbeddedModel",
    "EngineKind",
    "ExternalModel",
    "Manifest",
    "Model",
    "ModelKind",
    "add_external",
    "embedded_models",
    "find_model",
    "find_model_script",
    "list_models",
    "publish_embedded",
    "read_manifest",
    "remove_address",
    "remove_model",
    "verify_weights",
]
