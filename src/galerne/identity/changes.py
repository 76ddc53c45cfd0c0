"""How a change of a row is applied and becomes a journal entry that says what was and what is."""

from collections.abc import Mapping
from datetime import datetime
from typing import cast

from galerne.governance import Actor
from galerne.identity.tables import Organisation, Workspace
from galerne.identity.tenants import KEEP
from galerne.journal import Entry


def stored_zones(zones: frozenset[str] | None) -> list[str] | None:
    """Zones as a row holds them: in one order, None for anywhere."""
    return None if zones is None else sorted(zones)


def apply(row: Organisation | Workspace, wanted: Mapping[str, object]) -> dict[str, str | bool]:
    """Set what differs on `row`; returns the new values and, as `..._was`, the old ones, empty if nothing differed."""
    told: dict[str, str | bool] = {}
    for field, value in wanted.items():
        before = getattr(row, field)
        if value is not KEEP and value != before:
            setattr(row, field, value)
            told |= {field: plain(value), f"{field}_was": plain(before)}
    return told


def plain(value: object) -> str | bool:
    """A row's value as the journal holds it: zones joined by spaces, `anywhere` where there is no pin."""
    if isinstance(value, list):
        return " ".join(cast(list[str], value))
    return "anywhere" if value is None else value if isinstance(value, bool) else str(value)


def entry(
    action: str, actor: Actor, row: Organisation | Workspace, at: datetime, detail: Mapping[str, str | bool]
) -> Entry:
    """The journal entry of what `actor` did to `row`."""
    kind = "organisation" if isinstance(row, Organisation) else "workspace"
    return Entry(
        action=f"{kind}.{action}", actor=actor, resource=f"{kind}:{row.id}", outcome="done", at=at, detail=detail
    )
