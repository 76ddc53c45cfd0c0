"""API keys as values: how one looks, how it is recognised without being kept, and what it grants."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from galerne.governance import Actor, Permission, Zones
from galerne.identity.tenants import DEFAULT_PLAN
from galerne.kernel import BadRequest, token

Dialect = Literal["openai", "mistral"]

KEY_PREFIX = "gal_"
LONGEST_KEY = 512
"""Characters of the longest key that is looked up at all."""

_SECRET_LENGTH = 40
_SHOWN_LENGTH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a new API key shall be.

    `scopes` None means all that its owner's role allows; limits None mean the installation's defaults; `zones` None
    means wherever its workspace and organisation may go;
    `strict` refuses request fields that the dialect does not define; `dialect` forces one for this key's callers.
    """

    name: str
    scopes: frozenset[Permission] | None = None
    zones: Zones = None
    workspace_id: str | None = None
    expires_at: datetime | None = None
    strict: bool = False
    dialect: Dialect | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What a presented key turned out to be: the actor it acts as, and the terms it was given.

    `zones` is where its requests may be answered: what key, workspace and organisation all allow. None is anywhere, and
    nothing serves an empty set. `plan` is the organisation's; `trace_content` whether its workspace lets traces hold
    what was written.
    """

    key_id: str
    prefix: str
    actor: Actor
    strict: bool
    dialect: Dialect | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    expires_at: datetime | None
    zones: Zones = None
    plan: str = DEFAULT_PLAN
    trace_content: bool = False


def generate_secret() -> str:
    """A new key: `gal_` and 40 characters of base 62, about 238 bits from the system's secure generator."""
    return KEY_PREFIX + token(_SECRET_LENGTH)


def fingerprint(secret: str) -> str:
    """SHA-256 of a key in hexadecimal: what is stored instead of it.

    A plain hash is enough because the key itself is random; a slow password hash would only slow every request down.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def visible_prefix(secret: str) -> str:
    """The first characters of a key, by which a person recognises it in a list; at most a third of it is shown."""
    return secret[: min(_SHOWN_LENGTH, len(secret) // 3)]


def check_new_key(new: NewKey, now: datetime) -> None:
    """Raise `BadRequest` naming the field if `new` cannot become a key."""
    if not new.name.strip() or len(new.name) > 100 or not new.name.isprintable():
        raise BadRequest("A key needs a name of 1 to 100 printable characters.", param="name")
    if new.expires_at is not None and new.expires_at <= now:
        raise BadRequest("The expiry lies in the past; give a time to come.", param="expires_at")
    for field in ("requests_per_minute", "tokens_per_minute"):
        value = getattr(new, field)
        if value is not None and not 1 <= value < 2**31:
            raise BadRequest(
                f"{field} must be 1 to {2**31 - 1}; leave it out for the installation's default.", param=field
            )
    if new.scopes is not None and not new.scopes:
        raise BadRequest("A key without any scope could do nothing; name at least one.", param="scopes")
