"""Organisations, workspaces, people and API keys: who is calling."""

from galerne.identity.keys import KEY_PREFIX, Dialect, KeyGrant, NewKey
from galerne.identity.routes import router
from galerne.identity.schemas import key_fields
from galerne.identity.service import (
    bootstrap,
    create_key,
    find_installation_admin,
    list_keys,
    resolve_key,
    revoke_key,
)

__all__ = [
    "KEY_PREFIX",
    "Dialect",
    "KeyGrant",
    "NewKey",
    "bootstrap",
    "create_key",
    "find_installation_admin",
    "key_fields",
    "list_keys",
    "resolve_key",
    "revoke_key",
    "router",
]
