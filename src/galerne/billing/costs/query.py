"""What may be asked of costs: which use, summed by what, and where a page ends. Pure."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast, get_args

import msgspec

from galerne.kernel import BadRequest

CostGroup = Literal[
    "day",
    "organisation_id",
    "workspace_id",
    "api_key_id",
    "cost_centre",
    "model",
    "token_class",
    "service_tier",
    "zone",
]
"""What costs can be summed by. Days are UTC days, of when the request began."""

MOST_ROWS = 1000
"""Of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQuery:
    """Which use to sum; empty lists let everything through, `organisation_id` None every tenant's, for the operator.

    `since` is inclusive, `until` exclusive; an hour that lies across one counts where it begins.
    """

    organisation_id: str | None
    group_by: Sequence[CostGroup] = ()
    workspace_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    models: Sequence[str] = ()
    cost_centres: Sequence[str] = ()
    currency: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """What tells one row from another: the groups, each once, then the currency: sums of two mean nothing."""
        return (*dict.fromkeys(self.group_by), "currency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A sum: `names` in the order of the query's columns, None where there is none; money in nano-units.

    Token counts are of disjoint classes: `input_tokens` computed (embeddings too), `cached_tokens`, `output_tokens`.
    `requests` and `quantity` are None unless summed by token class: a request counts in each of its classes, and
    tokens and pages don't add up.
    """

    names: tuple[str | None, ...]
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    nano: int
    quantity: int | None = None
    requests: int | None = None


def cost_groups(text: str) -> tuple[CostGroup, ...]:
    """The groups that `text` names, with commas between them; `BadRequest` for a name that is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = cast(tuple[CostGroup, ...], get_args(CostGroup))
    found: tuple[CostGroup, ...] = tuple(group for name in names for group in known if group == name)
    if len(found) < len(names):
        raise BadRequest(f"Costs are summed by {', '.join(known)}; '{text[:80]}' says something else.", param="by")
    return found


def page_after(names: Sequence[str | None]) -> str:
    """The page that begins behind the row with these names, as text for an address."""
    packed = json.dumps([name or "" for name in names], separators=(",", ":"))
    return base64.urlsafe_b64encode(packed.encode()).decode().rstrip("=")


def names_before(page: str, query: CostQuery) -> list[str]:
    """The names that a page begins behind; `BadRequest` for one that is not of this query."""
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)), type=list[str])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        found = list[str]()
    if len(found) != len(query.columns) or any("\x00" in each for each in found):
        raise BadRequest("This is no page of that query; take `next_page` of the page before.", param="page")
    return found
