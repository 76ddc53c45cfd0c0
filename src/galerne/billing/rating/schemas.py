"""Wire types of rating: what waits, corrections, and reports of re-rating; money is decimals in strings."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.prices.decimals import decimal_of
from galerne.billing.prices.schemas import PriceChangeIn, Quantity
from galerne.billing.rating.rerating import Rerating, ReratingRun
from galerne.billing.rating.revisions import Counts
from galerne.kernel import BadRequest
from galerne.kernel.web import Text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RerateIn(_Strict):
    """Prices that shall have counted from when they say; with the digest of the report they are applied."""

    prices: PriceChangeIn
    digest: Text | None = None
    period: Text | None = Field(None, description="Show one month's use only, such as 2026-11.")
    organization_id: Text | None = Field(None, description="Show one organisation's use only.")


class ReratingList(BaseModel):
    """Re-ratings that were begun, newest first."""

    object: Literal["list"]
    data: list[dict[str, Any]]


class CorrectionIn(_Strict):
    """What an event shall count as, or as nothing if no tokens are given, and why."""

    event: Text
    reason: Text
    input_tokens: Quantity | None = None
    cached_tokens: Quantity | None = None
    output_tokens: Quantity | None = None

    def counts(self) -> Counts | None:
        """The tokens, all or none."""
        given = (self.input_tokens, self.cached_tokens, self.output_tokens)
        if given == (None, None, None):
            return None
        if None in given:
            raise BadRequest("Give all three counts of tokens, or none to void the event.", param="input_tokens")
        return Counts(*(each or 0 for each in given))


class WaitingOut(BaseModel):
    """Usage of one model that has no price."""

    model: str
    events: int
    since: datetime


class RatingOut(BaseModel):
    """How many events are in each state, and the queue of those without a price."""

    object: Literal["rating"]
    events: dict[str, int]
    unmatched: list[WaitingOut]


def rerating_fields(report: Rerating, *, applied: bool) -> dict[str, Any]:
    """A re-rating's report as JSON shows it: each line before and after, and what to agree to."""
    rows = [
        {name: value for name, value in asdict(each).items() if not name.endswith("_nano")}
        | {"before": decimal_of(each.before_nano), "after": decimal_of(each.after_nano)}
        | {"difference": ("-" if each.difference_nano < 0 else "") + decimal_of(abs(each.difference_nano))}
        for each in report.differences
    ]
    # What was looked at in part cannot be agreed to: prices are one for all.
    head = {"object": "rating.report", "applied": applied, "digest": report.digest if report.is_whole else None}
    return head | {"events": report.events, "changed": report.changed, "differences": rows}


def run_fields(run: ReratingRun) -> dict[str, Any]:
    """A re-rating that was begun, as JSON shows it."""
    return {"object": "rating.rerating", **asdict(run)}
