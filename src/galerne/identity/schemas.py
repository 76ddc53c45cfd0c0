"""Wire types of the API keys' administration: input refuses unknown fields, output has no defaults."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from galerne.governance import Permission
from galerne.identity.keys import Dialect, NewKey
from galerne.identity.tables import ApiKey
from galerne.kernel.web import Text, UtcMoment


class KeyIn(BaseModel):
    """An API key to make."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    scopes: list[Permission] | None = None
    workspace_id: Text | None = None
    expires_at: UtcMoment | None = None
    strict: bool = False
    dialect: Dialect | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def new_key(self) -> NewKey:
        """The same, as identity takes it."""
        fields: dict[str, Any] = dict(self)
        fields["scopes"] = None if self.scopes is None else frozenset(self.scopes)
        return NewKey(**fields)


class KeyOut(BaseModel):
    """An API key as a list shows it: never the secret."""

    model_config = ConfigDict(from_attributes=True)

    object: Literal["api_key"]
    id: str
    name: str
    prefix: str
    scopes: list[str]
    workspace_id: str | None
    strict: bool
    dialect: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class CreatedKeyOut(KeyOut):
    """A key just made; `key` is the secret, shown this once."""

    key: str


class KeyList(BaseModel):
    """A page of API keys."""

    object: Literal["list"]
    data: list[KeyOut]


def key_fields(row: ApiKey) -> dict[str, object]:
    """The fields of `KeyOut` from a stored key."""
    names = (name for name in KeyOut.model_fields if name != "object")
    return {"object": "api_key", **{name: getattr(row, name) for name in names}}
