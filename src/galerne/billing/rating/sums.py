"""Hourly sums of rated use as they are stored and read: keys and lines have numbers, so that a sum is some 30 bytes."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import select

from galerne.billing.rating.rater import BucketKey, LineKey, Sum
from galerne.billing.rating.tables import RatedKeyRow, RatedLineRow, UsageBucketRow
from galerne.billing.rating.totals import HourSum, NewSums, Whose
from galerne.kernel import Insert, Query, Script

KEYS = cast(SqlTable, RatedKeyRow.__table__)
LINES = cast(SqlTable, RatedLineRow.__table__)
BUCKETS = cast(SqlTable, UsageBucketRow.__table__)
_LINE = tuple(LINES.c[name] for name in LineKey._fields)
_SUMS = ("requests", "quantity", "nano")
_HOUR_S = 3600
_KEY_COLUMNS = ("number", "workspace_id", "key_id", "organisation_id")
_BUCKET_COLUMNS = tuple(column.name for column in BUCKETS.columns)
_LINE_COLUMNS = ("number", *LineKey._fields, "currency")
_KEYS_BY_ID = "SELECT workspace_id, key_id, organisation_id, number FROM rated_keys WHERE key_id IN :ids"
_LINES_BY_RATE = f"SELECT {', '.join(LineKey._fields)}, number FROM rated_lines WHERE rate_id IN :ids"  # noqa: S608  # names of ours

HOURS = (
    select(
        BUCKETS.c.period,
        KEYS.c.organisation_id,
        KEYS.c.workspace_id,
        KEYS.c.key_id,
        BUCKETS.c.hour,
        *_LINE,
        LINES.c.currency,
        *(BUCKETS.c[name] for name in _SUMS),
    )
    .select_from(BUCKETS.join(KEYS, KEYS.c.number == BUCKETS.c.key_number))
    .join(LINES, LINES.c.number == BUCKETS.c.line_number)
    .subquery("usage_hours")
)
"""Every sum with its key and its line, by name, to be asked like a table."""


def new_sums(sums: Mapping[tuple[str, BucketKey], Sum]) -> NewSums:
    """Sums by period and bucket as they are added."""
    rows: list[HourSum] = [
        ((key.workspace_id, key.key_id, key.organisation_id), period, key.hour, key.line, requests, quantity, nano)
        for (period, key), (requests, quantity, nano) in sums.items()
    ]
    return NewSums({row[0] for row in rows}, [(key.line, key.currency) for _, key in sums], rows)


def add_sums_script(new: NewSums) -> Script[None]:
    """Add to what is there. Whoever calls holds the rating: nobody else gives numbers."""
    keys, numbers = yield from _numbers(new.whose, dict(new.lines))
    by_object = {id(line): numbers[line] for line, _ in new.lines}  # a line is long to hash
    hours: dict[datetime, int] = {}
    rows: dict[tuple[int, str, int, int], tuple[int, int, int]] = {}
    for whose, period, at, line, requests, quantity, nano in new.sums:
        hour = hours.get(at)
        if hour is None:
            hour = hours[at] = int(at.timestamp()) // _HOUR_S
        place = (keys[whose], period, hour, by_object[id(line)])
        known = rows.get(place)
        if known is not None:
            requests, quantity, nano = requests + known[0], quantity + known[1], nano + known[2]
        rows[place] = (requests, quantity, nano)
    # In the order of the key: pages are written once.
    yield Insert(BUCKETS, _BUCKET_COLUMNS, [(*place, *rows[place]) for place in sorted(rows)], adding=_SUMS)


def _numbers(whose: set[Whose], lines: Mapping[LineKey, str]) -> Script[tuple[dict[Whose, int], dict[LineKey, int]]]:
    # NULL would be unlike itself in a unique constraint: no workspace is an empty text.
    stored = {(workspace_id or "", key_id, organisation_id) for workspace_id, key_id, organisation_id in whose}
    if not whose:
        return {}, {}
    found = yield Query(_KEYS_BY_ID, {"ids": sorted({each[1] for each in stored})})
    keys: dict[tuple[str, ...], int] = {tuple(row[:3]): row[3] for row in found}
    new_keys = sorted(stored - keys.keys())
    if new_keys:
        keys |= yield from _numbered("rated_keys", new_keys)
        yield Insert(KEYS, _KEY_COLUMNS, [(keys[each], *each) for each in new_keys])
    found = yield Query(_LINES_BY_RATE, {"ids": sorted({each.rate_id for each in lines})})
    numbers: dict[tuple[Any, ...], int] = {tuple(row[:7]): row[7] for row in found}
    new_lines = sorted(lines.keys() - numbers.keys())
    if new_lines:
        numbers |= yield from _numbered("rated_lines", new_lines)
        yield Insert(LINES, _LINE_COLUMNS, [(numbers[each], *each, lines[each]) for each in new_lines])
    return {each: keys[each[0] or "", each[1], each[2]] for each in whose}, {each: numbers[each] for each in lines}


def _numbered(table: str, new: Iterable[tuple[Any, ...]]) -> Script[dict[tuple[Any, ...], int]]:
    ((last,),) = yield Query(f"SELECT coalesce(max(number), 0) FROM {table}", {})  # noqa: S608  # a name of ours
    return {each: number for number, each in enumerate(new, last + 1)}
