"""How a control-plane route declares what it needs: one dependency that every route carries."""

from typing import Any, cast

from fastapi import Depends, Request

from galerne.governance.actors import Actor, Permission, require


class RequiredPermission:
    """The check behind `requires`; a class, so that the application can see at start which routes declare one."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    def __call__(self, request: Request) -> Actor:
        """The caller's `Actor`, put there by the authentication middleware; raises `Forbidden` when it may not."""
        actor = cast(Actor, request.state.actor)
        require(actor, self.permission)
        return actor


def requires(permission: Permission) -> Any:
    """A FastAPI dependency that yields the caller's `Actor`, or raises `Forbidden` (403) when it lacks `permission`."""
    return Depends(RequiredPermission(permission))
