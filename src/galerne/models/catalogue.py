"""Models as values, and what makes a name, an address or a key's whereabouts acceptable."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from galerne.kernel import BadRequest

ModelKind = Literal["chat", "embedding"]
EngineKind = Literal["llamacpp", "openai"]

# Names of Mistral's model cards (published specification, schema ModelCapabilities), which the gateway's cards show.
CHAT_CAPABILITIES = frozenset({"completion_chat", "completion_fim", "function_calling"})
EMBEDDING_CAPABILITIES = frozenset({"embeddings"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model that can be asked for by `id` or an alias.

    `version` names exactly which weights answer; `upstream_model` is what the replica calls it; `url` (ending in `/v1`)
    is set for engine "openai" alone, and so is the place of its key: a variable's name or a file, never the key.
    `context_length` counts tokens of prompt and answer together; None where only the other server knows.
    """

    id: str
    version: str
    kind: ModelKind
    engine: EngineKind
    aliases: tuple[str, ...]
    context_length: int | None
    capabilities: frozenset[str]
    upstream_model: str
    url: str | None
    api_key_env: str | None
    api_key_file: str | None
    zone: str
    licence: str
    owned_by: str
    created_at: datetime
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalModel:
    """A model that another OpenAI-compatible server runs, as an operator registers it."""

    name: str
    url: str
    upstream_model: str | None = None
    kind: ModelKind = "chat"
    api_key_env: str | None = None
    api_key_file: str | None = None
    context_length: int | None = None
    zone: str = "on-prem"
    licence: str = "unknown"
    description: str = ""


def check_external(model: ExternalModel) -> None:
    """Raise `BadRequest` naming the field if `model` cannot be registered."""
    if not _NAME.fullmatch(model.name):
        raise BadRequest(
            f"'{model.name}' is no model name: up to 100 of A-Z a-z 0-9 . _ : / - and a letter or digit first.",
            param="name",
        )
    address = _address(model.url)
    if address.username or address.password or address.query or address.fragment:
        raise BadRequest(
            "Keep credentials and queries out of the address; use --api-key-env or --api-key-file.", param="url"
        )
    if model.api_key_env is not None and not _VARIABLE.fullmatch(model.api_key_env):
        # The value is not repeated: a key pasted here by mistake must not land in a log.
        raise BadRequest(
            "--api-key-env takes the name of an environment variable, not the key itself.", param="api_key_env"
        )
    if model.api_key_env and model.api_key_file:
        raise BadRequest("Give the key's place once: --api-key-env or --api-key-file.", param="api_key_file")
    if model.context_length is not None and not 1 <= model.context_length < 2**31:
        raise BadRequest("The context length is a number of tokens, at least 1.", param="context_length")


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
