"""Finding what the journal says of requests when they ended: near the time that their ids begin with, else anywhere."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.proof import ENDED, moment_of
from galerne.journal import LeafFilter, StoredLeaf, read

_PAGE = 1000
_EARLIER = timedelta(hours=1)
_LATER = timedelta(days=1)
_APART = timedelta(days=3)


async def ended_leaves(
    session: AsyncSession, organisation_id: str, event_ids: Sequence[str], last_seq: int
) -> dict[str, StoredLeaf]:
    """The leaves that requests of an organisation left when they ended, by request, up to the leaf `last_seq`.

    The journal has no index of requests, so that writing it stays cheap: leaves lie in the order in which requests
    ended, and are read from where the first of some neighbours must be. What is not found there is sought everywhere.
    """
    wanted = set(event_ids)
    found: dict[str, StoredLeaf] = {}
    for first, last in _clusters(sorted(wanted)):
        after = await _seek(session, organisation_id, first - _EARLIER, last_seq)
        await _scan(session, organisation_id, (after, last_seq), wanted, found, last + _LATER)
    if len(found) < len(wanted):
        await _scan(session, organisation_id, (0, last_seq), wanted, found, None)
    return found


def _clusters(names: Sequence[str]) -> list[tuple[datetime, datetime]]:
    clusters: list[tuple[datetime, datetime]] = []
    for name in names:
        at = moment_of(name)
        if at is None:
            continue  # then it is sought everywhere
        if clusters and at - clusters[-1][1] < _APART:
            clusters[-1] = (clusters[-1][0], at)
        else:
            clusters.append((at, at))
    return clusters


async def _scan(
    session: AsyncSession,
    organisation_id: str,
    between: tuple[int, int],
    wanted: set[str],
    found: dict[str, StoredLeaf],
    until: datetime | None,
) -> None:
    after, last_seq = between
    while len(found) < len(wanted):
        chosen = LeafFilter(actions=ENDED, after=after, before=last_seq, oldest_first=True)
        leaves = await read(session, organisation_id, chosen, _PAGE)
        for leaf in leaves:
            if leaf.request_id in wanted:
                found.setdefault(leaf.request_id, leaf)
        if len(leaves) < _PAGE or (until is not None and leaves[-1].at > until):
            return
        after = leaves[-1].seq


async def _seek(session: AsyncSession, organisation_id: str, at: datetime, last_seq: int) -> int:
    """A place before the organisation's first leaf at or after `at`, if leaves lie in the order of their times."""
    low, high = 0, last_seq
    while high - low > _PAGE:
        middle = (low + high) // 2
        found = await read(session, organisation_id, LeafFilter(after=middle, before=last_seq, oldest_first=True), 1)
        if found and found[0].at < at:
            low = found[0].seq
        else:
            high = middle
    return low
