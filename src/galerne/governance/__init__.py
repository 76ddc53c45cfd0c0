"""Who acts, what they may do and where, as values that every other domain checks and none interprets for itself."""

from galerne.governance.actors import ROLE_PERMISSIONS, SYSTEM, Actor, ActorKind, Permission, Role, require
from galerne.governance.zones import Zones, check_within, checked_zones, common_zones

__all__ = [
    "ROLE_PERMISSIONS",
    "SYSTEM",
    "Actor",
    "ActorKind",
    "Permission",
    "Role",
    "Zones",
    "check_within",
    "checked_zones",
    "common_zones",
    "require",
]
