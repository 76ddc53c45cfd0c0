"""What is decided before an engine is asked: who calls, in which dialect, for which model, within which limits."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from galerne.billing import PPM
from galerne.gateway.caller import Caller
from galerne.gateway.catalogue import Catalogue
from galerne.gateway.dialect import Dialect, choose_dialect
from galerne.gateway.keys import KeyCache, presented_key
from galerne.gateway.reservations import Need, Reservations, Reserved
from galerne.gateway.schemas import SchemaChecker
from galerne.gateway.settled import Flight, Payment
from galerne.gateway.terms import Terms, TermsCache
from galerne.gateway.tickets import Tier
from galerne.gateway.tiers import served_name, tier_of
from galerne.gateway.wire.answer import Face
from galerne.gateway.wire.chat import check_chat, function_schemas, is_text, prefix_of
from galerne.gateway.wire.outgoing import (
    cache_scope,
    chat_upstream,
    completion_upstream,
    embedding_upstream,
    fim_upstream,
)
from galerne.gateway.wire.requests import (
    BODIES,
    COST_HEADER,
    Body,
    Endpoint,
    Parsed,
    check_strict,
    completion_cap,
    decode_object,
    parse,
    wants_cost,
)
from galerne.gateway.wire.shapes import ChatBody, CompletionBody, EmbeddingBody, FimBody, Sampled
from galerne.governance import Permission, require
from galerne.identity import KeyGrant
from galerne.kernel import BadRequest, Settings
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
_BUILD: dict[type[Any], Callable[[Parsed[Any], Model], dict[str, Any]]] = {
    ChatBody: chat_upstream,
    CompletionBody: completion_upstream,
    FimBody: fim_upstream,
    EmbeddingBody: embedding_upstream,
}
_MOST_OUTPUT = 32_768  # a cap of two thousand million tokens is no plan, and must not lock a key until it settles
_LARGEST_CONTEXT = 131_072  # of models whose own context nobody told us
_TEMPLATE_TOKENS = 512  # a system prompt that a template puts in by itself, dates and tool instructions among it
_TOKENS_OF_A_PART = 16
_ASSUMED_OUTPUT = 1024  # reserved for an answer without a cap of its own; the correction follows at settlement


class Arrival(Struct, eq=False):
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
    cost: int = 0
    terms: Terms | None = None
    face: Face | None = None
    queued_s: float = 0.0
    stopped: bool = False
    headers: list[tuple[bytes, bytes]] | None = None


class Admitted(Struct, frozen=True, kw_only=True):
    """A request that an engine may be asked to answer."""

    arrival: Arrival
    grant: KeyGrant
    model: Model
    body: Body
    terms: Terms
    reserved: Reserved
    face: Face
    streamed: bool
    cap: int | None
    prompt_bytes: int
    tier: Tier
    weight: int
    affinity: str | None
    upstream_path: UpstreamPath
    upstream_body: dict[str, Any]

    def __repr__(self) -> str:
        return f"Admitted({self.arrival.request_id})"  # never what the caller wrote

    def flight(self, zone: str) -> Flight:
        """What a settlement needs to know of this request besides how it ends."""
        arrival, terms, reserved = self.arrival, self.terms, self.reserved
        payment = None
        if reserved.draw is not None and terms.accounts is not None:
            payment = Payment(reserved.draw.hold.id, *terms.accounts, reserved.draw.amount)
        return Flight(
            id=arrival.request_id,
            organisation_id=self.grant.actor.organisation_id,
            workspace_id=self.grant.actor.workspace_id,
            key_id=self.grant.key_id,
            model=self.model.id,
            model_version=self.model.version,
            endpoint=arrival.endpoint,
            dialect=arrival.dialect,
            tier=self.tier,
            zone=zone,
            streamed=self.streamed,
            started_at=arrival.started_at,
            modifier_ppm=PPM,
            rates=terms.rates_for(arrival.endpoint, self.tier, zone, arrival.started_at),
            payment=payment,
            leases=reserved.leases(),
        )


class Admission:
    """Decides in this order, so that nobody learns of models without a key: key, permission, body, model, limits."""

    def __init__(
        self, keys: KeyCache, catalogue: Catalogue, terms: TermsCache, reservations: Reservations, settings: Settings
    ) -> None:
        self._keys = keys
        self._catalogue = catalogue
        self._terms = terms
        self._reservations = reservations
        self._settings = settings
        self._schemas = SchemaChecker()

    async def admit(self, arrival: Arrival) -> Admitted:
        """The admitted request, its tokens reserved; raises a `GalerneError` for whatever stands against it."""
        caller = arrival.caller
        grant = arrival.grant = await self._keys.resolve(presented_key(caller.headers))
        arrival.dialect = choose_dialect(arrival.mount, grant.dialect, caller.user_agent)
        require(grant.actor, Permission.INFERENCE_RUN)
        raw = await caller.body(self._settings.max_body_bytes)
        fields = decode_object(raw)
        arrival.dialect = _dialect(arrival, grant, fields)
        parsed = parse(fields, BODIES[arrival.endpoint])
        if grant.strict:
            check_strict(parsed, arrival.dialect)
        model = arrival.model = await self._catalogue.find(parsed.body.model)
        _check_kind(model, arrival.endpoint)
        upstream_body = await self._upstream_body(parsed, model)
        upstream_body.update(cache_scope(model, grant.actor.organisation_id))
        prompt_bytes = _prompt_bytes(parsed.body)
        terms = arrival.terms = await self._terms.of(grant, model)
        tier = tier_of(parsed.body.service_tier if isinstance(parsed.body, Sampled) else None, terms.plan)
        face = arrival.face = _face(arrival, parsed.body, model, tier)
        arrival.cost = reserved_tokens(parsed.body, prompt_bytes, model)
        nano = terms.most_nano(*most_tokens(parsed.body, len(raw), model), tier, arrival.started_at)
        if terms.accounts is not None and model.context_length is None and isinstance(parsed.body, Sampled):
            upstream_body.setdefault("max_tokens", _MOST_OUTPUT)  # nobody else would end what nobody could pay
        return Admitted(
            arrival=arrival,
            grant=grant,
            model=model,
            body=parsed.body,
            terms=terms,
            reserved=await self._reservations.reserve(terms, Need(arrival.cost, nano)),
            face=face,
            streamed=isinstance(parsed.body, Sampled) and bool(parsed.body.stream),
            cap=completion_cap(parsed.body) if isinstance(parsed.body, Sampled) else None,
            prompt_bytes=prompt_bytes,
            tier=tier,
            weight=terms.plan.weight,
            affinity=_affinity(caller, fields),
            upstream_path=_UPSTREAM_PATHS[arrival.endpoint],
            upstream_body=upstream_body,
        )

    async def _upstream_body(self, parsed: Parsed[Any], model: Model) -> dict[str, Any]:
        body = parsed.body
        if isinstance(body, ChatBody):
            check_chat(parsed)
            schemas = function_schemas(body)
            if schemas:
                await self._schemas.check(schemas)
        return _BUILD[type(body)](parsed, model)


def most_tokens(body: Body, raw_bytes: int, model: Model) -> tuple[int, int]:
    """The most tokens that a request of `raw_bytes` can use, of input and of output.

    No tokenizer makes more tokens than there are bytes; a template adds at most 512, and 16 for each message and tool.
    What is not text (a picture's address is short, the picture is not) may fill the context. An answer without a cap
    ends at the model's context, or where the gateway caps it.
    """
    if not isinstance(body, Sampled):
        return raw_bytes + _TEMPLATE_TOKENS, 0
    parts = len(body.messages) + len(body.tools or ()) if isinstance(body, ChatBody) else 1
    prompt = raw_bytes + _TEMPLATE_TOKENS + _TOKENS_OF_A_PART * parts
    if isinstance(body, ChatBody) and not all(map(is_text, body.messages)):
        prompt = max(prompt, model.context_length or _LARGEST_CONTEXT)
    cap = completion_cap(body)
    output = _MOST_OUTPUT if cap is None else cap
    if model.context_length is not None:
        output = min(output, model.context_length)
    return prompt, output * _answers(body)


def _answers(body: Sampled) -> int:
    answers = body.n or 1
    return max(answers, body.best_of or 1) * _prompts(body) if isinstance(body, CompletionBody) else answers


def _prompts(body: CompletionBody) -> int:
    prompt = body.prompt
    return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1


def reserved_tokens(body: Body, prompt_bytes: int, model: Model) -> int:
    """Tokens assumed to be needed until it has settled: a third of the prompt's bytes, and the cap for each answer."""
    prompt = prompt_bytes // 3 + 1
    if not isinstance(body, Sampled):
        return prompt
    cap = completion_cap(body)
    output = _ASSUMED_OUTPUT if cap is None else min(cap, _MOST_OUTPUT)
    if model.context_length is not None:
        output = min(output, model.context_length)
    return prompt + output * _answers(body)


def _affinity(caller: Caller, fields: dict[str, Any]) -> str | None:
    header = caller.headers.get(b"x-affinity")
    if header:
        return header.decode("latin-1")
    named = fields.get("prompt_cache_key")
    return named if isinstance(named, str) and named else None


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


def _face(arrival: Arrival, body: Body, model: Model, tier: Tier) -> Face:
    include = body.stream_options.include_usage if isinstance(body, Sampled) and body.stream_options else None
    headers = arrival.caller.headers
    include_cost = (body.usage is not None or COST_HEADER in headers) and wants_cost(headers.get(COST_HEADER), body)
    return Face(
        request_id=arrival.request_id,
        created=int(arrival.started_at.timestamp()),
        model=body.model,
        fingerprint=f"{model.id}@{model.version}",
        endpoint=arrival.endpoint,
        dialect=arrival.dialect,
        include_usage=include_cost or (arrival.dialect == "mistral" if include is None else include),
        prefix=prefix_of(body) if isinstance(body, ChatBody) else None,
        tier=served_name(tier, "openai" if arrival.endpoint == "completions" else arrival.dialect),
        include_cost=include_cost,
    )
