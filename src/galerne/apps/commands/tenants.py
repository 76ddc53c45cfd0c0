"""What commands on organisations, workspaces and keys share: naming zones, and for which organisation one acts."""

from datetime import datetime
from typing import Annotated, cast

import typer

from galerne.governance import Zones, checked_zones
from galerne.identity import KEEP, Keep
from galerne.kernel import BadRequest

ZonesOption = Annotated[
    str | None, typer.Option("--zones", help="Where its requests may be answered: eu,fr … Default: no pin of its own.")
]
AnywhereOption = Annotated[bool, typer.Option("--anywhere", help="Lift its pin to zones.")]
OrganisationOption = Annotated[
    str | None, typer.Option("--organisation", help="Id of the organisation. Default: the operator's own.")
]


def named_zones(text: str | None) -> Zones:
    """The zones that `text` names, with commas between them; `BadRequest` for a name that is none."""
    return None if text is None else checked_zones([name.strip() for name in text.split(",")], param="--zones")


def changed_zones(text: str | None, anywhere: bool) -> Zones | Keep:
    """The zones to change to: those named, None with `--anywhere`, else to keep them."""
    if anywhere and text is not None:
        raise BadRequest("Give either --zones or --anywhere.", param="--zones")
    return named_zones(text) if text is not None or anywhere else KEEP


def shown_zones(value: object) -> str:
    """Zones in a table."""
    return "anywhere" if value is None else ",".join(cast(list[str], value))


def plain(value: object) -> str:
    """What JSON has no form for, as text."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
