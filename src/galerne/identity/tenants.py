"""Organisations and workspaces as values: what a new one shall be, and what may change about one."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from galerne.governance import Zones
from galerne.kernel import BadRequest

DEFAULT_PLAN = "developer"
"""The id of the plan that an organisation has unless its operator says otherwise; what it means is billing's."""

_LONGEST_NAME = 200


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""Stands in a change for what is to stay as it is, where None would mean something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrganisation:
    """What a new organisation shall be; `administrator` is the name of the person whose key comes with it."""

    name: str
    plan: str = DEFAULT_PLAN
    zones: Zones = None
    administrator: str = "administrator"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganisationChange:
    """What shall change about an organisation; `zones` None lifts its pin."""

    name: str | Keep = KEEP
    plan: str | Keep = KEEP
    zones: Zones | Keep = KEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorkspace:
    """What a new workspace shall be; `zones` None means wherever its organisation may go."""

    name: str
    zones: Zones = None
    trace_content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceChange:
    """What shall change about a workspace; `zones` None lifts its own pin."""

    name: str | Keep = KEEP
    zones: Zones | Keep = KEEP
    trace_content: bool | Keep = KEEP


def checked_name(name: str, *, param: str = "name") -> str:
    """`name` without spaces around it; raises `BadRequest` naming `param` if it is empty, too long or not printable."""
    trimmed = name.strip()
    if not trimmed or len(trimmed) > _LONGEST_NAME or not trimmed.isprintable():
        raise BadRequest(f"A name has 1 to {_LONGEST_NAME} printable characters.", param=param)
    return trimmed
