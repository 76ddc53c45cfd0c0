"""How a control-plane route declares what it needs: one dependency that every route carries."""

from typing import Any, cast

from fastapi import Depends, Request

from galerne.governance.actors import Actor, Permission, require
from galerne.kernel.errors import Forbidden


class RequiredPermission:
    """The check behind `requires`; a class, so that the application can see at start which routes declare one."""

    def __init__(self, permission: Permission, *, whole_organisation: bool = False) -> None:
        self.permission = permission
        self._whole_organisation = whole_organisation

    # A coroutine: FastAPI would run a plain function in a thread, which takes longer than what it does.
    async def __call__(self, request: Request) -> Actor:
        """The caller's `Actor`, put there by the authentication middleware; raises `Forbidden` when it may not."""
        actor = cast(Actor, request.state.actor)
        require(actor, self.permission)
        if self._whole_organisation and actor.workspace_id is not None:
            raise Forbidden("This key belongs to one workspace, and this is the whole organisation's: use a key of it.")
        return actor


def requires(permission: Permission, *, whole_organisation: bool = False) -> Any:
    """A FastAPI dependency that yields the caller's `Actor`, or raises `Forbidden` (403) when it lacks `permission`.

    With `whole_organisation` an actor of one workspace is refused too.
    """
    return Depends(RequiredPermission(permission, whole_organisation=whole_organisation))
