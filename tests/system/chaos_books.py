"""What must hold after chaos: each delivered token metered and paid once, sound books, whole journal, no leftovers."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from galerne.billing import Rates, cost_nano
from galerne.journal import verify
from galerne.kernel import Database
from galerne.ledger import check_books
from tests.system.chaos_load import Received

RATES = Rates(
    model_id="any",
    currency="EUR",
    effective_from=datetime(2026, 1, 1, tzinfo=UTC),
    input_nano_per_million=500_000_000,
    cached_nano_per_million=50_000_000,
    output_nano_per_million=1_500_000_000,
)
_EXPECTED = {200, 429, 502, 503, 504}
_USAGE = """
SELECT id, organisation_id, input_tokens, cached_tokens, output_tokens, outcome, estimated FROM usage_events"""
_LEAVES = "SELECT request_id, action, leaf FROM journal_leaves WHERE action LIKE 'inference.%' ORDER BY seq"
_PAID = """
SELECT transfer.id, amount_nano, debit.organisation_id FROM ledger_transfers AS transfer
JOIN ledger_accounts AS debit ON debit.id = debit_account_id
WHERE transfer.kind = 'settle' OR transfer.reason = 'the hold was gone'"""
_LEFT = {
    "holds still open": "SELECT count(*) FROM ledger_holds WHERE NOT closed",
    "nano-units still pending": "SELECT coalesce(sum(debits_pending_nano + credits_pending_nano), 0)"
    " FROM ledger_accounts",
    "requests still under way": "SELECT count(*) FROM gateway_progress",
}
_LEASES = "SELECT holder, count(*) FROM limit_leases GROUP BY holder"


@dataclass(frozen=True)
class Metered:
    """One usage event, and what it costs."""

    organisation_id: str
    output: int
    outcome: str
    estimated: bool
    cost_nano: int
    used: bool


@dataclass
class Books:
    """What the database holds after a run."""

    usage: Mapping[str, Metered]
    actions: Mapping[str, list[str]]
    details: Mapping[str, Mapping[str, Any]]
    paid: Mapping[str, list[tuple[int, str]]]
    problems: list[str]

    @property
    def recovered(self) -> int:
        """How many requests were settled for a dead process."""
        return sum("inference.recovered" in actions for actions in self.actions.values())


async def read_books(database: Database) -> Books:
    """Everything that is compared, and what product and database say themselves of its soundness."""
    async with database.reading() as session:
        usage = {row[0]: _metered(row) for row in await session.execute(text(_USAGE))}
        actions: dict[str, list[str]] = defaultdict(list)
        details: dict[str, Mapping[str, Any]] = {}
        for request_id, action, leaf in await session.execute(text(_LEAVES)):
            actions[request_id].append(action)
            details[request_id] = json.loads(bytes(leaf))["detail"]
        paid: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for name, nano, organisation_id in await session.execute(text(_PAID)):
            paid[name].append((nano, organisation_id))
        problems = [f"the books: {line}" for line in await check_books(session)]
        checked = await verify(session)
        if checked.problem is not None:
            problems.append(f"the journal: {checked.problem}")
    return Books(usage, actions, details, paid, problems)


async def left_over(database: Database, data: Path, living: int) -> list[str]:
    """What waits to be settled or given back: rows, but the leases of who lives, and files beyond `living` of them."""
    async with database.reading() as session:
        counts = {name: (await session.execute(text(sql))).scalar_one() for name, sql in _LEFT.items()}
        leases = {row[0]: int(row[1]) for row in await session.execute(text(_LEASES))}
    holders = _holders(data) if living else frozenset()
    counts["leases still out"] = sum(count for holder, count in leases.items() if holder not in holders)
    return [f"{int(count)} {name}" for name, count in counts.items() if count] + _files_left(data, living)


def discrepancies(books: Books, received: Iterable[Received], sent: Mapping[str, int]) -> list[str]:
    """Whatever is not as it must be, a line each."""
    found = list(books.problems)
    for one in received:
        found += _received(one, books, sent)
    for request_id, event in books.usage.items():
        found += _metered_rightly(request_id, event, sent)
        found += _paid_and_journalled(request_id, event, books)
    found += [f"{name}: journalled and not metered" for name in books.actions if name not in books.usage]
    found += [f"{name}: paid and not metered" for name in books.paid if name not in books.usage]
    return found + _sums(books)


def _holders(data: Path) -> frozenset[str]:
    return frozenset(each.stem.removeprefix("flights-") for each in data.glob("flights-*.bin"))


def _files_left(data: Path, living: int) -> list[str]:
    flights = sorted(each.name for each in data.glob("flights-*.bin"))
    unsettled = sorted(each.name for each in data.glob("unsettled-*"))
    return (flights if len(flights) > living else []) + unsettled


def _metered(row: Sequence[Any]) -> Metered:
    _, organisation_id, fresh, cached, output, outcome, estimated = row
    cost = cost_nano(RATES, fresh, cached, output)
    return Metered(organisation_id, output, outcome, bool(estimated), cost, bool(fresh + cached + output))


def _received(one: Received, books: Books, sent: Mapping[str, int]) -> list[str]:
    name = f"{one.request_id} ({one.model}, {one.end}, {one.code})"
    found: list[str] = []
    if one.status not in _EXPECTED:
        found.append(f"{name}: answered with {one.status}")
    if one.tokens != list(range(1, len(one.tokens) + 1)):
        found.append(f"{name}: received {one.tokens}")
    if not one.tokens:
        return found
    event = books.usage.get(one.request_id)
    if event is None:
        return [*found, f"{name}: {len(one.tokens)} tokens delivered and none metered"]
    if not len(one.tokens) <= event.output <= sent.get(one.request_id, 0):
        found.append(
            f"{name}: {len(one.tokens)} received, {event.output} metered, {sent.get(one.request_id)} sent"
            f" ({event.outcome}, {books.actions.get(one.request_id)})"
        )
    if one.end == "completed" and (one.asked, one.asked, one.asked, "completed") != (
        len(one.tokens),
        event.output,
        one.counted,
        event.outcome,
    ):
        found.append(f"{name}: asked for {one.asked}, counted {one.counted}, metered {event}")
    return found


def _metered_rightly(request_id: str, event: Metered, sent: Mapping[str, int]) -> list[str]:
    if request_id not in sent and event.used:
        return [f"{request_id}: metered, and no engine heard of it: {event}"]
    if event.output > sent.get(request_id, 0):
        return [f"{request_id}: {event.output} metered of {sent.get(request_id, 0)} that were sent"]
    return []


def _paid_and_journalled(request_id: str, event: Metered, books: Books) -> list[str]:
    found: list[str] = []
    if len(books.actions.get(request_id, ())) != 1:
        found.append(f"{request_id}: in the journal as {books.actions.get(request_id)}")
    detail = books.details.get(request_id, {})
    paid = books.paid.get(request_id, [])
    amount = sum(nano for nano, _ in paid)
    if len(paid) > 1 or amount != detail.get("paid_nano") or any(who != event.organisation_id for _, who in paid):
        found.append(f"{request_id}: paid {paid}, journalled {detail}")
    if amount + int(detail.get("unpaid_nano") or 0) != event.cost_nano:
        found.append(f"{request_id}: costs {event.cost_nano}, paid {amount}, journalled {detail}")
    return found


def _sums(books: Books) -> list[str]:
    owed: Counter[str] = Counter()
    settled: Counter[str] = Counter()
    for request_id, event in books.usage.items():
        owed[event.organisation_id] += event.cost_nano
        settled[event.organisation_id] += int(books.details.get(request_id, {}).get("unpaid_nano") or 0)
    for paid in books.paid.values():
        for nano, organisation_id in paid:
            settled[organisation_id] += nano
    return [
        f"{who}: used {owed[who]} nano, settled {settled[who]}" for who in owed | settled if owed[who] != settled[who]
    ]
