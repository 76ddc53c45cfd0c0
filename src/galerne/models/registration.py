"""What registering another server's model makes of the catalogue: pure, knows no database."""

from dataclasses import replace
from datetime import datetime

from galerne.kernel import BadRequest, Conflict
from galerne.models.catalogue import (
    CHAT_CAPABILITIES,
    EMBEDDING_CAPABILITIES,
    Address,
    ExternalModel,
    Model,
    address_id,
    base_url,
)

_DEFAULT_ZONE = "on-prem"


def registered(external: ExternalModel, known: Model | None, base: Model | None, now: datetime) -> Model:
    """The model after `external`, checked, was registered: a new one, or `known` with one address more or changed.

    `base` is the model that `external.adapter_of` names. `Conflict` where what is known forbids it, `BadRequest` for
    a base that cannot be one.
    """
    if base is not None and (base.engine != "openai" or base.adapter_of is not None):
        raise BadRequest(
            f"'{base.id}' can have no adapters: its base must be a model that another server runs, and no adapter.",
            param="adapter_of",
        )
    if known is None:
        return _new(external, base, now)
    if known.engine != "openai":
        raise Conflict(f"'{known.id}' is the name of an embedded model; choose another name.", param="name")
    if known.adapter_of != (None if base is None else base.id):
        raise Conflict(
            f"'{known.id}' is registered as {_described(known)}; remove it first or choose another name.", param="name"
        )
    return _changed(known, external, base, now)


def without_address(known: Model, url: str) -> Model:
    """`known` without its address `url`; `BadRequest` if that is none of its addresses, `Conflict` if the only one."""
    wanted = base_url(url)
    if known.adapter_of is not None or wanted not in {address.url for address in known.addresses}:
        raise BadRequest(f"'{known.id}' has no address {wanted} of its own.", param="url")
    left = tuple(address for address in known.addresses if address.url != wanted)
    if not left:
        raise Conflict(f"{wanted} is the only address of '{known.id}': add another first, or remove the model.")
    return replace(known, addresses=left)


def _new(external: ExternalModel, base: Model | None, now: datetime) -> Model:
    kind = external.kind or (base.kind if base else "chat")
    _check_kind_of_base(kind, base)
    return Model(
        id=external.name,
        version=external.upstream_model or external.name,
        kind=kind,
        engine="openai",
        aliases=(),
        context_length=external.context_length or (base.context_length if base else None),
        capabilities=EMBEDDING_CAPABILITIES if kind == "embedding" else CHAT_CAPABILITIES,
        upstream_model=external.upstream_model or external.name,
        addresses=base.addresses if base else _with_address((), external, now),
        adapter_of=base.id if base else None,
        licence=external.licence or "unknown",
        owned_by="external",
        created_at=now,
        description=external.description or "",
    )


def _changed(known: Model, external: ExternalModel, base: Model | None, now: datetime) -> Model:
    upstream_model = external.upstream_model or known.upstream_model
    kind = external.kind or known.kind
    if kind != known.kind:
        raise Conflict(f"'{known.id}' is registered as {known.kind}; remove it first.", param="kind")
    others = [address for address in known.addresses if external.url and address.url != base_url(external.url)]
    if upstream_model != known.upstream_model and others:
        raise Conflict(
            f"'{known.id}' is called '{known.upstream_model}' at {others[0].url}: one model has one name at all its "
            "addresses.",
            param="upstream_model",
        )
    return replace(
        known,
        version=upstream_model,
        upstream_model=upstream_model,
        context_length=external.context_length or known.context_length,
        licence=known.licence if external.licence is None else external.licence,
        description=known.description if external.description is None else external.description,
        addresses=base.addresses if base else _with_address(known.addresses, external, now),
    )


def _with_address(known: tuple[Address, ...], external: ExternalModel, now: datetime) -> tuple[Address, ...]:
    url = base_url(external.url or "")
    found = next((each for each in known if each.url == url), None)
    before = found or Address(id=address_id(external.name, url), url=url, zone=_DEFAULT_ZONE, created_at=now)
    key_given = external.api_key_env is not None or external.api_key_file is not None
    after = replace(
        before,
        zone=external.zone or before.zone,
        api_key_env=external.api_key_env if key_given else before.api_key_env,
        api_key_file=external.api_key_file if key_given else before.api_key_file,
        most_parallel=external.most_parallel or before.most_parallel,
    )
    return (*known, after) if found is None else tuple(after if each is found else each for each in known)


def _check_kind_of_base(kind: str, base: Model | None) -> None:
    if base is not None and kind != base.kind:
        raise BadRequest(f"An adapter is of its base's kind, {base.kind}.", param="kind")


def _described(model: Model) -> str:
    return "a model with addresses of its own" if model.adapter_of is None else f"an adapter of '{model.adapter_of}'"
