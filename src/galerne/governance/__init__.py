"""Who acts and what they may do, as values that every other domain checks and none interprets for itself."""

from galerne.governance.access import RequiredPermission, requires
from galerne.governance.actors import ROLE_PERMISSIONS, SYSTEM, Actor, ActorKind, Permission, Role, require

__all__ = [
    "ROLE_PERMISSIONS",
    "SYSTEM",
    "Actor",
    "ActorKind",
    "Permission",
    "RequiredPermission",
    "Role",
    "require",
    "requires",
]
