"""Which dialect a caller speaks, decided from path, key, the client's name and body, in that order."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

__all__ = ["MOUNTS", "Dialect", "choose_dialect", "dialect_of_agent", "dialect_of_body", "split_mount"]

Dialect = Literal["openai", "mistral"]

MOUNTS: dict[str, Dialect] = {"/openai/v1/": "openai", "/mistral/v1/": "mistral"}
"""Below what a dialect is forced."""

_LONGEST_AGENT = 200
# Fields that only one of the two published specifications has.
_MISTRAL_ONLY = frozenset(
    {"random_seed", "safe_prompt", "prompt_mode", "guardrails", "output_dimension", "output_dtype"}
)
_OPENAI_ONLY = frozenset(
    {"seed", "max_completion_tokens", "stream_options", "logit_bias", "store", "user", "dimensions"}
)


def split_mount(path: str) -> tuple[Dialect | None, str]:
    """The dialect that `path` forces (None if it forces none), and the path as if it had not been mounted."""
    for mount, dialect in MOUNTS.items():
        if path.startswith(mount):
            return dialect, "/v1/" + path[len(mount) :]
    return None, path


def dialect_of_agent(user_agent: str) -> Dialect | None:
    """The dialect of the official clients, told by `User-Agent` as openai 3.54 and mistralai 3.7 send it."""
    return _dialect_of_agent(user_agent[:_LONGEST_AGENT])


@lru_cache(256)
def _dialect_of_agent(user_agent: str) -> Dialect | None:
    agent = user_agent.lower()
    if agent.startswith(("mistral-client-", "speakeasy-sdk/")) and "mistral" in agent:
        return "mistral"
    if agent.startswith(("openai/", "asyncopenai/")):
        return "openai"
    return None


def dialect_of_body(body: Mapping[str, Any]) -> Dialect | None:
    """The dialect that a body's fields give away; None when they are common to both, or contradict each other."""
    mistral = body.get("tool_choice") == "any" or _holds(body, _MISTRAL_ONLY)
    openai = _holds(body, _OPENAI_ONLY)
    if mistral == openai:
        return None
    return "mistral" if mistral else "openai"


def _holds(body: Mapping[str, Any], names: frozenset[str]) -> bool:
    found = body.keys() & names
    return bool(found) and any(body[name] is not None for name in found)


def choose_dialect(
    mount: Dialect | None, key_setting: Dialect | None, user_agent: str, body: Mapping[str, Any] | None = None
) -> Dialect:
    """The caller's dialect; OpenAI's when nothing tells."""
    return mount or key_setting or dialect_of_agent(user_agent) or (dialect_of_body(body) if body else None) or "openai"
