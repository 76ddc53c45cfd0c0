"""What is decided before an engine is asked: who calls, in which dialect, for which model, within which limits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from galerne.gateway.caller import Caller
from galerne.gateway.catalogue import Catalogue
from galerne.gateway.dialect import Dialect, choose_dialect
from galerne.gateway.keys import KeyCache, presented_key
from galerne.gateway.limits import Limits, Standing
from galerne.gateway.schemas import SchemaChecker
from galerne.gateway.wire.answer import Face
from galerne.gateway.wire.chat import check_chat, function_schemas, prefix_of
from galerne.gateway.wire.outgoing import (
    cache_scope,
    chat_upstream,
    completion_upstream,
    embedding_upstream,
    fim_upstream,
)
from galerne.gateway.wire.requests import (
    BODIES,
    Body,
    Endpoint,
    Parsed,
    check_strict,
    completion_cap,
    decode_object,
    parse,
)
from galerne.gateway.wire.shapes import ChatBody, CompletionBody, EmbeddingBody, FimBody, Sampled
from galerne.governance import Permission, require
from galerne.identity import KeyGrant
from galerne.kernel import BadRequest, Clock, Settings
from galerne.models import Model

__all__ = ["PATHS", "Admission", "Admitted", "Arrival", "UpstreamPath", "reserved_tokens"]

UpstreamPath = str
PATHS: dict[str, Endpoint] = {
    "/v1/chat/completions": "chat.completions",
    "/v1/completions": "completions",
    "/v1/fim/completions": "fim.completions",
    "/v1/embeddings": "embeddings",
}
_UPSTREAM_PATHS: dict[Endpoint, UpstreamPath] = {
    "chat.completions": "/chat/completions",
    "completions": "/completions",
    "fim.completions": "/completions",
    "embeddings": "/embeddings",
}
_MOST_OUTPUT = 32_768  # a cap of two thousand million tokens is no plan, and must not lock a key until it settles
_ASSUMED_OUTPUT = 1024  # reserved for an answer without a cap of its own; the correction follows at settlement


@dataclass(slots=True)
class Arrival:
    """A request as it comes in; what is learnt on the way is kept here, so that a refusal can be told and logged."""

    caller: Caller
    endpoint: Endpoint
    mount: Dialect | None
    request_id: str
    started_at: datetime
    started_s: float
    dialect: Dialect
    grant: KeyGrant | None = None
    model: Model | None = None
    standing: Standing | None = None
    face: Face | None = None
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request that an engine may be asked to answer."""

    arrival: Arrival
    grant: KeyGrant
    model: Model
    body: Body
    standing: Standing
    face: Face
    streamed: bool
    cap: int | None
    prompt_bytes: int
    upstream_path: UpstreamPath
    upstream_body: dict[str, Any] = field(repr=False)


class Admission:
    """Decides in this order, so that nobody learns of models without a key: key, permission, body, model, limits."""

    def __init__(self, keys: KeyCache, catalogue: Catalogue, limits: Limits, settings: Settings, clock: Clock) -> None:
        self._keys = keys
        self._catalogue = catalogue
        self._limits = limits
        self._settings = settings
        self._clock = clock
        self._schemas = SchemaChecker()

    async def admit(self, arrival: Arrival) -> Admitted:
        """The admitted request, its tokens reserved; raises a `GalerneError` for whatever stands against it."""
        caller = arrival.caller
        grant = arrival.grant = await self._keys.resolve(presented_key(caller.headers))
        arrival.dialect = choose_dialect(arrival.mount, grant.dialect, caller.user_agent)
        require(grant.actor, Permission.INFERENCE_RUN)
        fields = decode_object(await caller.body(self._settings.max_body_bytes))
        arrival.dialect = _dialect(arrival, grant, fields)
        parsed = parse(fields, BODIES[arrival.endpoint])
        if grant.strict:
            check_strict(parsed, arrival.dialect)
        model = arrival.model = await self._catalogue.find(parsed.body.model)
        _check_kind(model, arrival.endpoint)
        upstream_body = self._upstream_body(parsed, model) | cache_scope(model, grant.actor.organisation_id)
        prompt_bytes = _prompt_bytes(parsed.body)
        face = arrival.face = _face(arrival, parsed.body, model)
        standing = self._reserve(arrival, grant, reserved_tokens(parsed.body, prompt_bytes, model))
        return Admitted(
            arrival=arrival,
            grant=grant,
            model=model,
            body=parsed.body,
            standing=standing,
            face=face,
            streamed=isinstance(parsed.body, Sampled) and bool(parsed.body.stream),
            cap=completion_cap(parsed.body) if isinstance(parsed.body, Sampled) else None,
            prompt_bytes=prompt_bytes,
            upstream_path=_UPSTREAM_PATHS[arrival.endpoint],
            upstream_body=upstream_body,
        )

    def _upstream_body(self, parsed: Parsed[Any], model: Model) -> dict[str, Any]:
        body = parsed.body
        if isinstance(body, ChatBody):
            check_chat(parsed)
            self._schemas.check(function_schemas(body))
        build: dict[type[Any], Callable[[Parsed[Any], Model], dict[str, Any]]] = {
            ChatBody: chat_upstream,
            CompletionBody: completion_upstream,
            FimBody: fim_upstream,
            EmbeddingBody: embedding_upstream,
        }
        return build[type(body)](parsed, model)

    def _reserve(self, arrival: Arrival, grant: KeyGrant, cost: int) -> Standing:
        per_minute = (
            grant.requests_per_minute or self._settings.default_requests_per_minute,
            grant.tokens_per_minute or self._settings.default_tokens_per_minute,
        )
        now_s = self._clock.monotonic()
        # A refusal tells where the key stands too, so it is noted before anything can be refused.
        arrival.standing = self._limits.standing(grant.key_id, per_minute, cost, now_s)
        arrival.standing = self._limits.admit(grant.key_id, per_minute, cost, now_s)
        return arrival.standing


def reserved_tokens(body: Body, prompt_bytes: int, model: Model) -> int:
    """Tokens assumed to be needed until it has settled: a third of the prompt's bytes, and the cap for each choice."""
    prompt = prompt_bytes // 3 + 1
    if not isinstance(body, Sampled):
        return prompt
    cap = completion_cap(body)
    output = _ASSUMED_OUTPUT if cap is None else min(cap, _MOST_OUTPUT)
    if model.context_length is not None:
        output = min(output, model.context_length)
    return prompt + output * (body.n or 1)


def _dialect(arrival: Arrival, grant: KeyGrant, fields: dict[str, Any]) -> Dialect:
    own = "mistral" if arrival.endpoint == "fim.completions" else None  # only Mistral has this endpoint
    return arrival.mount or grant.dialect or own or choose_dialect(None, None, arrival.caller.user_agent, fields)


def _check_kind(model: Model, endpoint: Endpoint) -> None:
    wanted = "embedding" if endpoint == "embeddings" else "chat"
    if model.kind != wanted:
        verb = "make embeddings" if wanted == "embedding" else "generate text"
        raise BadRequest(f"The model '{model.id}' cannot {verb}.", code="unsupported_model", param="model")
    if endpoint == "fim.completions" and model.engine == "llamacpp" and "completion_fim" not in model.capabilities:
        raise BadRequest(f"The model '{model.id}' cannot fill in the middle.", code="unsupported_model", param="model")


def _prompt_bytes(body: Body) -> int:
    prompt: Any = body.messages if isinstance(body, ChatBody) else getattr(body, "prompt", getattr(body, "input", ""))
    suffix = len((getattr(body, "suffix", None) or "").encode())
    if isinstance(prompt, str):
        return len(prompt.encode()) + suffix
    if isinstance(body, ChatBody):
        return len(msgspec.json.encode(body.messages))
    if prompt and type(prompt[0]) is int:
        return 4 * len(prompt)
    return sum(len(item.encode()) if isinstance(item, str) else 4 * len(item) for item in prompt) + suffix


def _face(arrival: Arrival, body: Body, model: Model) -> Face:
    include = body.stream_options.include_usage if isinstance(body, Sampled) and body.stream_options else None
    return Face(
        request_id=arrival.request_id,
        created=int(arrival.started_at.timestamp()),
        model=body.model,
        fingerprint=f"{model.id}@{model.version}",
        endpoint=arrival.endpoint,
        dialect=arrival.dialect,
        include_usage=arrival.dialect == "mistral" if include is None else include,
        prefix=prefix_of(body) if isinstance(body, ChatBody) else None,
    )
