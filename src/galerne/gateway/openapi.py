"""The data plane's routes as OpenAPI 3.1: inference, made from the structs that decode it, and the list of models."""

from typing import Any

import msgspec

from galerne.gateway.wire.requests import BODIES, COST_HEADER, Endpoint
from galerne.governance import Permission

__all__ = ["PERMISSION", "openapi_schema"]

PERMISSION = "x-permission"
"""The extension that names what a key must be permitted."""

_REFERENCE = "#/components/schemas/{name}"
_SUMMARIES: dict[Endpoint, tuple[str, str, str]] = {
    "chat.completions": ("/v1/chat/completions", "Chat", "Answer a conversation, whole or as a stream of events."),
    "completions": ("/v1/completions", "Completions", "Continue a text (OpenAI's older endpoint)."),
    "fim.completions": (
        "/v1/fim/completions",
        "Fill in the middle",
        "Write what stands between two texts (Mistral's).",
    ),
    "embeddings": ("/v1/embeddings", "Embeddings", "Turn texts into vectors."),
}
_COST: dict[str, Any] = {
    "name": COST_HEADER.decode(),
    "in": "header",
    "description": 'The answer says in `usage` what the request cost, as with `usage: {"include": true}`.',
    "schema": {"type": "string", "enum": ["true", "false"]},
}
_MODELS = {
    "/v1/models": ("List models", "List the models that can be asked for. The cards hold what both clients read."),
    "/v1/models/{name}": ("Read a model", "Read one model's card, by id or alias."),
}
_ERRORS = {
    "400": "The request cannot be understood; `param` names the field.",
    "401": "No valid API key.",
    "403": "The key lacks the permission `inference:run`.",
    "404": "The model does not exist.",
    "422": "A field is not what it must be (Mistral's dialect; in OpenAI's this is 400).",
    "429": "Too many requests or tokens; see `retry-after`.",
    "502": "The engine failed.",
    "503": "The engine is not ready; see `retry-after`.",
}


def openapi_schema() -> dict[str, Any]:
    """`paths` and `components` of these routes, to be merged into the control plane's document."""
    shapes = list(BODIES.values())
    references, schemas = msgspec.json.schema_components(shapes, ref_template=_REFERENCE)
    paths = {
        _SUMMARIES[endpoint][0]: {"post": _operation(endpoint, reference)}
        for endpoint, reference in zip(BODIES, references, strict=True)
    }
    paths |= {path: {"get": _model_operation(path, *said)} for path, said in _MODELS.items()}
    return {"paths": paths, "components": {"schemas": {**schemas, "InferenceError": _error_schema()}}}


def _operation(endpoint: Endpoint, reference: dict[str, Any]) -> dict[str, Any]:
    _, title, summary = _SUMMARIES[endpoint]
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if endpoint != "embeddings":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    error = {"application/json": {"schema": {"$ref": _REFERENCE.format(name="InferenceError")}}}
    return {
        "tags": ["Inference"],
        PERMISSION: Permission.INFERENCE_RUN,
        "operationId": endpoint.replace(".", "_"),
        "summary": title,
        "description": summary,
        "parameters": [_COST],
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": {
            "200": {"description": "The answer, in the caller's dialect.", "content": content},
            **{status: {"description": text, "content": error} for status, text in _ERRORS.items()},
        },
    }


def _model_operation(path: str, title: str, description: str) -> dict[str, Any]:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "tags": ["Models"],
        PERMISSION: Permission.MODELS_READ,
        "operationId": "read_model" if "{" in path else "list_models",
        "summary": title,
        "description": description,
        "parameters": [name] if "{" in path else [],
        "responses": {"200": {"description": "What both dialects' clients read.", "content": content}},
    }


def _error_schema() -> dict[str, Any]:
    text = {"type": ["string", "null"]}
    fields: dict[str, Any] = {"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text}
    return {
        "type": "object",
        "description": "One error for both dialects: OpenAI's clients read `error`, Mistral's the top level, `detail`.",
        "required": ["error", "object", "message", "type", "code"],
        "properties": {
            "error": {"type": "object", "properties": fields},
            "object": {"const": "error"},
            **fields,
            "raw_status_code": {"type": "integer"},
            "detail": {"type": "array", "items": {"type": "object"}},
        },
    }
