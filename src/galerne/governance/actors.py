"""Actors, permissions and roles as values: who acts, what may be done, and which bundle of permissions has a name.

Role names follow Mistral's published admin API where it has the same noun.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from galerne.kernel.errors import Forbidden


class Permission(StrEnum):
    """One thing that may be done; also the name of an API key's scope."""

    INFERENCE_RUN = "inference:run"
    MODELS_READ = "models:read"
    MODELS_MANAGE = "models:manage"
    KEYS_MANAGE = "keys:manage"
    USAGE_READ = "usage:read"
    JOURNAL_READ = "journal:read"
    WORKSPACES_MANAGE = "workspaces:manage"
    ORGANIZATION_MANAGE = "organization:manage"
    PRICES_READ = "prices:read"
    PRICES_MANAGE = "prices:manage"
    BILLING_READ = "billing:read"
    BILLING_MANAGE = "billing:manage"
    CREDITS_MANAGE = "credits:manage"
    LIMITS_MANAGE = "limits:manage"
    PAYMENTS_MANAGE = "payments:manage"


class Role(StrEnum):
    """A named bundle of permissions that a person holds: for the installation, in an organisation or in a workspace."""

    INSTALLATION_ADMIN = "installation_admin"
    ORGANIZATION_ADMIN = "organization_admin"
    WORKSPACE_ADMIN = "workspace_admin"
    DEVELOPER = "dev"
    BILLING = "billing"


_OPERATORS = frozenset(
    {Permission.MODELS_MANAGE, Permission.PRICES_MANAGE, Permission.CREDITS_MANAGE, Permission.PAYMENTS_MANAGE}
)
_DEVELOPER = frozenset({Permission.INFERENCE_RUN, Permission.MODELS_READ, Permission.PRICES_READ})

ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.INSTALLATION_ADMIN: frozenset(Permission),
    Role.ORGANIZATION_ADMIN: frozenset(Permission) - _OPERATORS,
    Role.WORKSPACE_ADMIN: _DEVELOPER
    | {Permission.KEYS_MANAGE, Permission.LIMITS_MANAGE, Permission.USAGE_READ, Permission.WORKSPACES_MANAGE},
    Role.DEVELOPER: _DEVELOPER,
    Role.BILLING: frozenset(
        {Permission.USAGE_READ, Permission.PRICES_READ, Permission.BILLING_READ, Permission.BILLING_MANAGE}
    ),
}
"""What each role may do. The catalogue, the price book, credit and payments are the house's: the operator's alone."""


class ActorKind(StrEnum):
    """What kind of thing acts."""

    USER = "user"
    API_KEY = "api_key"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever acts, with what they may do; made by `identity`, checked by everyone.

    `workspace_id` is None for an actor of the whole organisation.
    """

    kind: ActorKind
    id: str
    organisation_id: str
    workspace_id: str | None
    permissions: frozenset[Permission] = field(default_factory=frozenset[Permission])


SYSTEM = Actor(ActorKind.SYSTEM, "system", "", None, frozenset(Permission))
"""This installation itself: its operator at the command line, its own background work."""


def require(actor: Actor, permission: Permission) -> None:
    """Return if `actor` holds `permission`, else raise `Forbidden` (403) naming it."""
    if permission not in actor.permissions:
        raise Forbidden(
            f"This needs the permission '{permission}', which this {actor.kind.replace('_', ' ')} does not have. "
            "Ask an administrator for a key with that scope.",
            code="insufficient_permissions",
        )
