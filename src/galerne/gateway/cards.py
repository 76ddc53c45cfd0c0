"""A model's card on the wire: the superset that both clients parse; pure."""

from datetime import UTC
from typing import Any

from galerne.models import Model

__all__ = ["CAPABILITIES", "model_card"]

CAPABILITIES = (
    "completion_chat",
    "function_calling",
    "reasoning",
    "completion_fim",
    "fine_tuning",
    "vision",
    "ocr",
    "classification",
    "moderation",
    "audio",
    "audio_transcription",
    "audio_transcription_realtime",
    "audio_speech",
)
"""Mistral's names (published specification, schema ModelCapabilities); `embeddings` is ours, beside them."""


def model_card(model: Model, name: str | None = None) -> dict[str, Any]:
    """The card of `model`, shown under `name` when it was asked for by an alias."""
    capabilities = {each: each in model.capabilities for each in CAPABILITIES}
    card: dict[str, Any] = {
        "id": name or model.id,
        "object": "model",
        "type": "base",
        "created": int(model.created_at.astimezone(UTC).timestamp()),
        "owned_by": model.owned_by,
        "name": model.id,
        "description": model.description,
        "aliases": [alias for alias in (model.id, *model.aliases) if alias != (name or model.id)],
        "capabilities": {**capabilities, "embeddings": model.kind == "embedding"},
        "deprecation": None,
        "deprecation_replacement_model": None,
        "default_model_temperature": None,
        "version": model.version,
        "licence": model.licence,
        "zones": sorted(model.zones),
    }
    if model.adapter_of is not None:
        card["root"] = model.adapter_of
    if model.context_length is not None:
        card["max_context_length"] = model.context_length
    return card
