"""What all customers' requests come to in a closed month, by one walk over the ratings in the order of their ids.

An invoice's leaves are in that order, so each customer's tree grows as the walk passes its requests: what is kept is
the right edge of each tree, however many requests there are, and the database is read from one end to the other.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Encoder
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.invoices.lines import span_of
from galerne.billing.invoices.usage import Raters, canonical_line, first_billed, leaves_of, revision_of
from galerne.billing.prices.book import Rate
from galerne.billing.rating.rater import RatedUsage, UsedTokens
from galerne.billing.rating.totals import AS_TEXT, AS_TIMES, Times
from galerne.journal import Frontier, hash_leaf
from galerne.kernel import Database, Query, Rows, Script, run_in_session
from galerne.ledger import AccountKind, currencies_by_organisation, customer_account, settlements_of

_PAGE = 20_000
_REVISED = 2000
_COLUMNS = (
    "e.id, e.started_at, e.workspace_id, e.key_id, e.organisation_id, e.model, e.endpoint, e.tier, e.zone, "
    "e.input_tokens, e.cached_tokens, e.output_tokens, r.revision, r.state, r.version, r.correction"
)
_FROM = f"SELECT {_COLUMNS} FROM usage_ratings r JOIN usage_events e ON e.id = r.event_id "  # noqa: S608  # names of ours
_ORDER = "ORDER BY r.event_id, r.revision LIMIT :limit"
# `|| ''`: the index begins with the period, and reading by it would have to sort the month.
_EVERYBODY = f"{_FROM}WHERE r.event_id > :after AND r.event_id < :end AND r.period || '' = :period {_ORDER}"
_ONE = (
    f"{_FROM}WHERE r.period = :period AND r.organisation_id = :organisation "
    f"AND r.event_id > :after AND r.event_id < :end {_ORDER}"
)
_LAST = "~"
"""Behind every id."""

Row = tuple[Any, ...]


@dataclass(slots=True)
class Requests:
    """An organisation's requests in one currency: the tree over their leaves, their cost, what credit paid of it."""

    tree: Frontier = field(default_factory=Frontier)
    nano: int = 0
    by_credit_nano: int = 0

    def add(self, nano: int, hashes: Iterable[bytes]) -> None:
        """Take the next leaves, by their hashes, which cost so much together."""
        self.nano += nano
        self.tree.extend(hashes)


ByCurrency = dict[str, Requests]


@dataclass(frozen=True, slots=True)
class MonthKnown:
    """What is known of a month before its drafts are made: requests by organisation and currency, rates by id."""

    requests: Mapping[str, ByCurrency]
    rates: Mapping[str, Rate]


class _Leaf(Struct, frozen=True, gc=False):
    # The fields in the order of their names, as canonical JSON has them.
    event: str
    line: Raw
    nano: int
    quantity: int


_encode = Encoder().encode


async def month_requests(
    database: Database,
    period: str,
    organisations: Collection[str],
    progress: Callable[[float], None] = lambda _part: None,
) -> dict[str, ByCurrency]:
    """What these organisations' requests come to in a month that is closed; `progress` is told which part is done.

    The same as their `rated_leaves` give. A page is read in a transaction of its own: a closed month does not change.
    """
    walk, span = _Walk(period, sorted(organisations)), span_of(period)
    first_ms, end_ms = (int(at.timestamp() * 1000) for at in (span.start, span.end))
    first, end = f"{first_ms:012x}", f"{end_ms:012x}"
    # Ids begin with the time of the request. Those of other months are few: late, or by a clock that was wrong.
    async with database.reading() as session:
        walk.prepaid = await _prepaid_accounts(session)
    await walk.others(database, "", first)
    after = first
    while after:
        async with database.reading() as session:
            rows, after = await _page(session, _EVERYBODY, {"period": period, "after": after, "end": end})
            await walk.take(session, [row for row in rows if row[4] in walk.found])
        progress((int((after or end)[:12], 16) - first_ms) / (end_ms - first_ms))
    await walk.others(database, end, _LAST)
    return walk.found


class _Walk:
    def __init__(self, period: str, organisations: Sequence[str]) -> None:
        self.found = {organisation_id: ByCurrency() for organisation_id in organisations}
        self._period = period
        self._raters = Raters(set(organisations))
        self.prepaid: dict[str, tuple[str, str]] = {}

    async def others(self, database: Database, begin: str, end: str) -> None:
        """Walk over the events between these ids, customer by customer."""
        async with database.reading() as session:
            for organisation_id in self.found:
                values = {"period": self._period, "organisation": organisation_id, "end": end}
                rows, after = await _page(session, _ONE, values | {"after": begin})
                while rows:
                    await self.take(session, rows)
                    rows, after = await _page(session, _ONE, values | {"after": after}) if after else ([], "")

    async def take(self, session: AsyncSession, rows: Sequence[Row]) -> None:
        """Add a page of ratings, with all of each event that are billed in the month."""
        if not rows:
            return
        times = AS_TEXT if isinstance(rows[0][1], str) else AS_TIMES
        changed = {row[4] for row in rows if row[12]}
        plain = [row for row in rows if row[13] == "rated" and row[4] not in changed]
        usage: list[RatedUsage] = []
        versions = sorted({row[14] for row in plain})
        for version in versions:
            rater = await self._raters.by(session, version)
            usage += rater.rate([_used(row, times) for row in plain if row[14] == version]).usage
        if len(versions) > 1:
            usage.sort(key=_event_id)
        self._add(usage)
        paid = {each.event_id: (each.organisation_id, each.currency) for each in usage} if self.prepaid else {}
        revised = {row[0]: row[4] for row in rows if row[12]}
        for organisation_id in changed:
            own = [revision_of(row, times.read) for row in rows if row[4] == organisation_id]
            for leaf in await leaves_of(session, self._raters, own):
                self._of(organisation_id, leaf.currency).add(leaf.nano, [hash_leaf(leaf.encoded())])
                if leaf.event_id not in revised:
                    paid[leaf.event_id] = organisation_id, leaf.currency
        await self._add_credit(session, paid, revised)

    def _add(self, usage: Sequence[RatedUsage]) -> None:
        names = {id(each.line): Raw(canonical_line(each.line)) for each in {id(u.line): u for u in usage}.values()}
        sha256 = hashlib.sha256
        found: dict[tuple[str, str], tuple[list[int], list[bytes]]] = {}
        for each in usage:
            whose = (each.organisation_id, each.currency)
            mine = found.get(whose)
            if mine is None:
                mine = found[whose] = ([], [])
            nano = each.nano
            mine[0].append(nano)
            leaf = _encode(_Leaf(each.event_id, names[id(each.line)], nano, each.quantity))
            mine[1].append(sha256(b"\x00" + leaf).digest())
        for (organisation_id, currency), (nanos, hashes) in found.items():
            self._of(organisation_id, currency).add(sum(nanos), hashes)

    def _of(self, organisation_id: str, currency: str) -> Requests:
        return self.found[organisation_id].setdefault(currency, Requests())

    async def _add_credit(
        self, session: AsyncSession, paid: Mapping[str, tuple[str, str]], revised: Mapping[str, str]
    ) -> None:
        """Add what credit paid of requests (by organisation and currency), and of those that were revised."""
        if not self.prepaid:
            return
        accounts = set(self.prepaid.values())
        mine = [name for name, whose in paid.items() if whose in accounts]
        for name, account_id, nano in await settlements_of(session, mine) if mine else ():
            if self.prepaid.get(account_id) == paid[name]:
                self._of(*paid[name]).by_credit_nano += nano
        # What was taken back in the month that billed it has no leaf, and was paid all the same.
        names = sorted(revised)
        for start in range(0, len(names), _REVISED):
            fresh = await first_billed(session, self._period, set(names[start : start + _REVISED]))
            for name, account_id, nano in await settlements_of(session, fresh) if fresh else ():
                whose = self.prepaid.get(account_id)
                if nano and whose is not None and whose[0] == revised[name]:
                    self._of(*whose).by_credit_nano += nano


async def _prepaid_accounts(session: AsyncSession) -> dict[str, tuple[str, str]]:
    return {
        customer_account(AccountKind.PREPAID, organisation_id, currency).id: (organisation_id, currency)
        for organisation_id, currencies in (await currencies_by_organisation(session, AccountKind.PREPAID)).items()
        for currency in currencies
    }


async def _page(session: AsyncSession, sql: str, values: dict[str, Any]) -> tuple[list[Row], str]:
    """Ratings, and after which event the next ones come; nothing if there are none."""
    rows = await run_in_session(session, _rows(sql, values | {"limit": _PAGE}))
    if len(rows) < _PAGE:
        return rows, ""
    last = rows[-1][0]  # an event's revisions stay together: the last one is left for the next page
    rows = [row for row in rows if row[0] != last] or rows
    return rows, rows[-1][0]


def _rows(sql: str, values: dict[str, Any]) -> Script[Rows]:
    return (yield Query(sql, values))


def _used(row: Row, times: Times) -> UsedTokens:
    return UsedTokens(row[0], times.read(row[1]), *row[2:12])


def _event_id(usage: RatedUsage) -> str:
    return usage.event_id
