"""Who acts, what they may do and where, as values that every other domain checks and none interprets for itself."""

from galerne.governance.access import RequiredPermission, requires
from galerne.governance.actors import ROLE_PERMISSIONS, SYSTEM, Actor, ActorKind, Permission, Role, require
from galerne.governance.zones import Zones, check_within, checked_zones, common_zones

__all__ = [
    "ROLE_PERMISSIONS",
    "SYSTEM",
    "Actor",
    "ActorKind",
    "Permission",
    "RequiredPermission",
    "Role",
    "Zones",
    "check_within",
    "checked_zones",
    "common_zones",
    "require",
    "requires",
]
