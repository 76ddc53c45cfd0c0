"""The rated usage that an invoice bills, one leaf a request and token class, worked out again from what is recorded.

Nothing is stored twice: an event's rating names the version of the price book, and rating is pure. A request that was
corrected or re-rated after its month was closed has leaves with the difference, which may be negative.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from galerne.billing.prices.reading import read_book
from galerne.billing.rating.rater import LineKey, RatedUsage, Rater, UsedTokens
from galerne.billing.rating.tables import UsageCorrectionRow, UsageRatingRow
from galerne.billing.rating.terms import rater_of
from galerne.kernel import UtcTime

_PAGE = 2000
_MOST_RATERS = 8
_COLUMNS = (
    "e.id, e.started_at, e.workspace_id, e.key_id, e.organisation_id, e.model, e.endpoint, e.tier, e.zone, "
    "e.input_tokens, e.cached_tokens, e.output_tokens, r.revision, r.state, r.version, r.correction"
)
_TIMES = {"started_at": UtcTime()}
_BILLED = text(
    f"SELECT {_COLUMNS} FROM usage_ratings r JOIN usage_events e ON e.id = r.event_id "  # noqa: S608  # names of ours
    "WHERE r.period = :period AND r.organisation_id = :organisation AND r.event_id > :after "
    "ORDER BY r.event_id, r.revision LIMIT :limit"
).columns(**_TIMES)
_REVISIONS = (
    text(
        f"SELECT {_COLUMNS} FROM usage_ratings r JOIN usage_events e ON e.id = r.event_id "  # noqa: S608  # as above
        "WHERE r.event_id IN :ids ORDER BY r.event_id, r.revision"
    )
    .bindparams(bindparam("ids", expanding=True))
    .columns(**_TIMES)
)
_CLASSES = {"input": 0, "embeddings": 0, "cached": 1, "output": 2}
_canonical = msgspec.json.Encoder(order="sorted").encode


class UsageLeaf(NamedTuple):
    """What one request used of one line and what that cost, in nano-units of `currency`."""

    event_id: str
    line: LineKey
    quantity: int
    nano: int
    currency: str

    def encoded(self) -> bytes:
        """Canonical JSON (RFC 8785) of event, line, quantity and nano: the leaf whose hash is in the invoice's root."""
        fields = {"event": self.event_id, "line": self.line._asdict(), "nano": self.nano, "quantity": self.quantity}
        return _canonical(fields)


def canonical_line(line: LineKey) -> bytes:
    """A leaf's line, canonical JSON."""
    return _canonical(line._asdict())


class RatedRevision(NamedTuple):
    """What an event counted as by one of its ratings."""

    used: UsedTokens
    revision: int
    state: str
    version: int
    correction: int


class Raters:
    """Raters for these organisations, one for each version of the price book that their usage was rated by."""

    def __init__(self, organisations: set[str]) -> None:
        self._organisations = organisations
        self._by_version: dict[int, Rater] = {}

    async def by(self, session: AsyncSession, version: int) -> Rater:
        """The rater by that version; only some are kept, for each has a price book."""
        if version not in self._by_version:
            if len(self._by_version) >= _MOST_RATERS:
                self._by_version.clear()
            book = await read_book(session, version=version)
            self._by_version[version] = await rater_of(session, book, self._organisations)
        return self._by_version[version]


async def rated_leaves(
    session: AsyncSession, organisation_id: str, period: str, page: int = _PAGE, after: str = ""
) -> AsyncGenerator[list[UsageLeaf]]:
    """What an organisation's month bills, in every currency, page by page in the order of event and token class.

    It begins beyond the event `after`. A month that is closed gives the same leaves for ever. Memory is that of a page.
    """
    raters = Raters({organisation_id})
    while True:
        values = {"period": period, "organisation": organisation_id, "after": after, "limit": page}
        rows = [revision_of(row) for row in await session.execute(_BILLED, values)]
        if not rows:
            return
        if len(rows) == page:  # an event's revisions stay together: the last one is left for the next page
            last = rows[-1].used.event_id
            rows = [row for row in rows if row.used.event_id != last] or rows
        after = rows[-1].used.event_id
        leaves = await leaves_of(session, raters, rows)
        if leaves:
            yield leaves


async def leaves_of(session: AsyncSession, raters: Raters, rows: Sequence[RatedRevision]) -> list[UsageLeaf]:
    """The leaves of rows of a billing period, with all of each event that are billed in it, in their order."""
    changed = {row.used.event_id for row in rows if row.revision}
    plain = [row for row in rows if row.used.event_id not in changed]
    leaves = [_leaf(each) for each in await _rated(session, raters, plain)]
    if changed:
        leaves += await _differences(session, raters, rows, sorted(changed))
    return sorted(leaves, key=_order)


async def first_billed(session: AsyncSession, period: str, names: set[str]) -> list[str]:
    """Those of some events, a few thousand at most, that the month bills first, whatever becomes of them.

    A request that was corrected later, or had no price at first, was paid in the month that billed it first.
    """
    row, before = UsageRatingRow, aliased(UsageRatingRow)
    rated_before = select(before.event_id).where(
        before.event_id == row.event_id, before.state == "rated", before.revision < row.revision
    )
    query = select(row.event_id).where(row.event_id.in_(names), row.state == "rated", row.period == period)
    return sorted(await session.scalars(query.where(~rated_before.exists())))


async def _differences(
    session: AsyncSession, raters: Raters, rows: Sequence[RatedRevision], changed: list[str]
) -> list[UsageLeaf]:
    billed = {(row.used.event_id, row.revision) for row in rows}
    every = [revision_of(row) for row in await session.execute(_REVISIONS, {"ids": changed})]
    sums: dict[tuple[str, LineKey, str], list[int]] = {}
    for row in every:
        name = row.used.event_id
        # What a revision adds is itself less the one before it; each counts in the month that it is billed in.
        weight = ((name, row.revision) in billed) - ((name, row.revision + 1) in billed)
        if weight:
            for each in await _rated(session, raters, [row]):
                known = sums.setdefault((name, each.line, each.currency), [0, 0])
                known[0] += weight * each.quantity
                known[1] += weight * each.nano
    return [
        UsageLeaf(name, line, amounts[0], amounts[1], unit)
        for (name, line, unit), amounts in sums.items()
        if any(amounts)
    ]


async def _rated(session: AsyncSession, raters: Raters, rows: Sequence[RatedRevision]) -> list[RatedUsage]:
    rows = await _corrected(session, [row for row in rows if row.state == "rated"])
    by_version: dict[int, list[UsedTokens]] = {}
    for row in rows:
        by_version.setdefault(row.version, []).append(row.used)
    found: list[RatedUsage] = []
    for version, events in by_version.items():
        found += (await raters.by(session, version)).rate(events).usage
    return found


async def _corrected(session: AsyncSession, rows: Iterable[RatedRevision]) -> list[RatedRevision]:
    rows = list(rows)
    names = {row.used.event_id for row in rows if row.correction}
    if not names:
        return rows
    row = UsageCorrectionRow
    query = select(row.event_id, row.number, row.input_tokens, row.cached_tokens, row.output_tokens)
    counts = {(each[0], each[1]): each[2:] for each in await session.execute(query.where(row.event_id.in_(names)))}
    return [
        each._replace(used=UsedTokens(*each.used[:9], *counts[each.used.event_id, each.correction]))
        if each.correction
        else each
        for each in rows
    ]


def revision_of(row: Any, read: Callable[[Any], datetime] | None = None) -> RatedRevision:
    """A row of an event and one of its ratings; `read` makes a time of what it has as one."""
    at = row[1] if read is None else read(row[1])
    return RatedRevision(UsedTokens(row[0], at, *row[2:12]), *row[12:])


def _leaf(usage: RatedUsage) -> UsageLeaf:
    return UsageLeaf(usage.event_id, usage.line, usage.quantity, usage.nano, usage.currency)


def _order(leaf: UsageLeaf) -> tuple[object, ...]:
    return (leaf.event_id, _CLASSES.get(leaf.line.token_class, 9), leaf.line, leaf.currency)
