"""Usage by slices of time, as OpenAI's organisation usage endpoints cut it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from galerne.metering.events import Totals

Width = Literal["1m", "1h", "1d"]
Kind = Literal["completions", "embeddings"]
Group = Literal["project_id", "api_key_id", "model"]

WIDTH_S: dict[Width, int] = {"1m": 60, "1h": 3_600, "1d": 86_400}
"""Seconds of a bucket; days are UTC days."""

DEFAULT_BUCKETS: dict[Width, int] = {"1m": 60, "1h": 24, "1d": 7}
MOST_BUCKETS: dict[Width, int] = {"1m": 1_440, "1h": 168, "1d": 31}
"""Buckets in one page, as OpenAI documents them for `limit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketQuery:
    """Which usage to cut. Times are Unix seconds, `end_s` exclusive; empty lists let everything through."""

    organisation_id: str
    kind: Kind
    start_s: int
    end_s: int
    width: Width
    limit: int
    group_by: Sequence[Group] = ()
    workspace_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sums of one slice of time, Unix seconds, `end_s` exclusive: for each group its names and its totals."""

    start_s: int
    end_s: int
    results: list[tuple[dict[Group, str | None], Totals]]


def slices(query: BucketQuery) -> tuple[list[tuple[int, int]], int | None]:
    """The bounds of the page's buckets, and the second at which the next page starts (None on the last page).

    Buckets lie on whole minutes, hours or days of UTC; the first and the last are cut to the query's range.
    """
    if query.end_s <= query.start_s:
        return [], None
    width_s = WIDTH_S[query.width]
    first = query.start_s // width_s
    after_last = -(-query.end_s // width_s)
    stop = min(after_last, first + query.limit)
    bounds = [(max(n * width_s, query.start_s), min((n + 1) * width_s, query.end_s)) for n in range(first, stop)]
    return bounds, stop * width_s if stop < after_last else None
