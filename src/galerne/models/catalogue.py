"""Models as values, and what makes a name, an address or a key's whereabouts acceptable."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from galerne.governance import checked_zones
from galerne.kernel import BadRequest

ModelKind = Literal["chat", "embedding"]
EngineKind = Literal["llamacpp", "openai"]

# Names of Mistral's model cards (published specification, schema ModelCapabilities), which the gateway's cards show.
CHAT_CAPABILITIES = frozenset({"completion_chat", "completion_fim", "function_calling"})
EMBEDDING_CAPABILITIES = frozenset({"embeddings"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_URL = 1_990  # with the version that may be added to it
_MOST = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One place where another server runs a model: `url` ends in `/v1`, `zone` says where it stands.

    Its key is named by a variable or a file, never stored. `most_parallel` is how many requests it takes at once, None
    where nobody said. `id` is the same on every machine: it is made of the model's name and the `url`.
    """

    id: str
    url: str
    zone: str
    api_key_env: str | None = None
    api_key_file: str | None = None
    most_parallel: int | None = None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model that can be asked for by `id` or an alias.

    `version` names exactly which weights answer; `upstream_model` is what the replica calls it. `addresses` is empty
    for embedded models, whose engine stands in `zone`. `adapter_of` names the model that this one is an adapter (LoRA)
    of: its addresses are that model's, and those of them serve it that hold it. `context_length` counts tokens of
    prompt and answer together; None where only the other server knows.
    """

    id: str
    version: str
    kind: ModelKind
    engine: EngineKind
    aliases: tuple[str, ...]
    context_length: int | None
    capabilities: frozenset[str]
    upstream_model: str
    addresses: tuple[Address, ...] = ()
    adapter_of: str | None = None
    zone: str | None = None
    licence: str
    owned_by: str
    created_at: datetime
    description: str

    @property
    def zones(self) -> frozenset[str]:
        """Every zone where it runs."""
        if self.engine == "openai":
            return frozenset(address.zone for address in self.addresses)
        return frozenset() if self.zone is None else frozenset((self.zone,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalModel:
    """A model at one address of another server, or an adapter of such a model, as an operator registers it.

    What is None stays as it is where model and address are known already; otherwise it takes its default: the name for
    `upstream_model`, chat (an adapter: its base's kind) for `kind`, `on-prem` for `zone`, `unknown` for `licence`.
    """

    name: str
    url: str | None = None
    adapter_of: str | None = None
    upstream_model: str | None = None
    kind: ModelKind | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    most_parallel: int | None = None
    context_length: int | None = None
    zone: str | None = None
    licence: str | None = None
    description: str | None = None


def check_external(model: ExternalModel) -> None:
    """Raise `BadRequest` naming the field if `model` cannot be registered."""
    if not _NAME.fullmatch(model.name):
        raise BadRequest(
            f"'{model.name}' is no model name: up to 100 of A-Z a-z 0-9 . _ : / - and a letter or digit first.",
            param="name",
        )
    if model.context_length is not None and not 1 <= model.context_length < _MOST:
        raise BadRequest("The context length is a number of tokens, at least 1.", param="context_length")
    if (model.url is None) == (model.adapter_of is None):
        raise BadRequest(
            "Say where the model runs, with --url, or which one it is an adapter of, with --adapter-of.", param="url"
        )
    if model.url is not None:
        _check_url(model.url)
        _check_key_place(model)
        if model.most_parallel is not None and not 1 <= model.most_parallel < _MOST:
            raise BadRequest("--parallel is a number of requests, at least 1.", param="most_parallel")
        if model.zone is not None:
            checked_zones([model.zone], param="zone")
        return
    for field in ("api_key_env", "api_key_file", "most_parallel", "zone"):
        if getattr(model, field) is not None:
            raise BadRequest(f"An adapter runs where its base does: {field} is a matter of the base.", param=field)


def _check_url(url: str) -> None:
    address = _address(url)
    if address.username or address.password or address.query or address.fragment:
        raise BadRequest(
            "Keep credentials and queries out of the address; use --api-key-env or --api-key-file.", param="url"
        )
    if len(url) > _LONGEST_URL:
        raise BadRequest(f"An address has at most {_LONGEST_URL} characters.", param="url")


def _check_key_place(model: ExternalModel) -> None:
    if model.api_key_env is not None and not _VARIABLE.fullmatch(model.api_key_env):
        # The value is not repeated: a key pasted here by mistake must not land in a log.
        raise BadRequest(
            "--api-key-env takes the name of an environment variable, not the key itself.", param="api_key_env"
        )
    if model.api_key_env and model.api_key_file:
        raise BadRequest("Give the key's place once: --api-key-env or --api-key-file.", param="api_key_file")


def _address(url: str) -> SplitResult:
    wrong = BadRequest(f"'{url}' is no http(s) address, such as http://gpu1:8000/v1.", param="url")
    try:
        address = urlsplit(url)
        _ = address.port  # read here because a port that is none raises only when it is asked for
    except ValueError:
        raise wrong from None
    if address.scheme not in ("http", "https") or not address.hostname:
        raise wrong
    return address


def base_url(url: str) -> str:
    """`url` as the gateway needs it: no trailing slash, ending in `/v1` as OpenAI-compatible servers serve it."""
    trimmed = url.rstrip("/")
    return trimmed if re.search(r"/v\d+$", trimmed) else f"{trimmed}/v1"


def address_id(model_id: str, url: str) -> str:
    """The id of the address `url` of a model: 32 hexadecimal digits of SHA-256."""
    return hashlib.sha256(f"{model_id}\n{url}".encode()).hexdigest()[:32]
