"""Residency zones: names of places where requests may be answered, and what is left when several have a say."""

import re
from collections.abc import Iterable
from functools import reduce

from galerne.kernel.errors import BadRequest

Zones = frozenset[str] | None
"""Where something may happen; None is anywhere, an empty set is nowhere."""

_ZONE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_LONGEST_ZONE = 40
_MOST_ZONES = 50


def checked_zones(names: Iterable[str] | None, *, param: str = "zones") -> Zones:
    """`names` as zones; raises `BadRequest` naming `param` for a name that is none, for none at all, or for too many.

    A zone is a lower-case slug of at most 40 characters, such as `eu`, `fr` or `on-prem`.
    """
    if names is None:
        return None
    zones = frozenset(names)
    wrong = sorted(zone for zone in zones if len(zone) > _LONGEST_ZONE or not _ZONE.fullmatch(zone))
    if wrong:
        raise BadRequest(
            f"'{wrong[0][:100]}' is no zone: up to {_LONGEST_ZONE} of a-z, 0-9 and - within, such as eu or on-prem.",
            param=param,
        )
    if not 1 <= len(zones) <= _MOST_ZONES:
        raise BadRequest(f"Name 1 to {_MOST_ZONES} zones, or leave them out for anywhere.", param=param)
    return zones


def common_zones(*allowed: Iterable[str] | None) -> Zones:
    """Where all of `allowed` agree: their intersection, None if none of them is pinned."""
    pinned = [frozenset(zones) for zones in allowed if zones is not None]
    return reduce(frozenset[str].intersection, pinned) if pinned else None


def check_within(zones: Zones, ceiling: Zones, *, param: str = "zones") -> None:
    """Raise `BadRequest` naming `param` if `zones` name a place that `ceiling` leaves out."""
    beyond = sorted(zones - ceiling) if zones is not None and ceiling is not None else ()
    if beyond:
        raise BadRequest(
            f"Zones can only be narrowed here: {', '.join(beyond)} is not among {', '.join(sorted(ceiling or ()))}."
            if ceiling
            else "What this belongs to has no zone left that it may use; widen that first.",
            param=param,
        )
