"""An invoice's requests with what proves them, page by page in the order of their ids: from ratings and the journal.

Nothing is stored for it: rating is pure and the journal keeps every leaf. A page needs one short reading transaction,
so that whoever fetches a long invoice holds up nobody.
"""

import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.invoice_usage.leaves import ended_leaves
from galerne.billing.invoices import Invoice, UsageLeaf, find_invoice, invoice_lines, provable_document, rated_leaves
from galerne.billing.proof import (
    CORRECTED,
    EMPTIED,
    FORMAT,
    ISSUED,
    VERSION,
    Entry,
    Head,
    Leaf,
    LineName,
    Request,
    UsageLine,
    head_line,
    is_late,
    request_line,
)
from galerne.billing.rating.tables import UsageRatingRow
from galerne.governance import Actor
from galerne.journal import LeafFilter, SignedCheckpoint, StoredLeaf, checkpoint_over, inclusion_proofs, read
from galerne.kernel import Database, NotFound, invariant

_PAGE = 1000
_LEAVES = 1000
_FEWEST = 200  # rows at once: more than one request has revisions


@dataclass(frozen=True, slots=True)
class OpenedProof:
    """An invoice that can be proved: everything but its requests, and under which checkpoint they are shown."""

    invoice: Invoice
    head: Head
    issued_seq: int
    signed: SignedCheckpoint


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Requests in the order of their ids, and whether others follow."""

    requests: list[Request]
    more: bool


@dataclass(frozen=True, slots=True)
class _Rating:
    event_id: str
    revision: int
    period: str
    state: str
    correction: int


async def open_proof(session: AsyncSession, actor: Actor, invoice_id: str) -> OpenedProof:
    """An invoice of the actor's organisation, to be proved under the oldest checkpoint that covers its issue.

    One that is `empty`, for credit has paid all of it, is proved like any other. Raises `NotFound` where there is no
    such invoice or (code `not_yet_signed`) no checkpoint covers it yet, `Conflict` while it is a draft.
    """
    invoice = await find_invoice(session, actor, invoice_id)
    frozen = await provable_document(session, actor, invoice_id)
    issued = await _issue_of(session, invoice)
    signed = await checkpoint_over(session, issued.seq)
    if signed is None:
        raise NotFound(
            "The issue of this invoice is not under a signed checkpoint yet: the next one covers it.",
            code="not_yet_signed",
        )
    lines = [
        UsageLine(LineName(*line.line_key), line.exact_nano) if line.line_key and invoice.usage_size else None
        for line in await invoice_lines(session, invoice_id)
    ]
    (shown,) = await _shown(session, [issued], signed)
    head = Head(FORMAT, VERSION, signed.note, shown, json.loads(frozen.text()), lines)
    return OpenedProof(invoice, head, issued.seq, signed)


async def requests_of(session: AsyncSession, opened: OpenedProof, after: str = "", limit: int = _PAGE) -> RequestPage:
    """At most `limit` requests of the invoice from beyond the id `after`, each with its leaves and their proofs."""
    invoice = opened.invoice
    if not invoice.usage_size or invoice.period is None:
        return RequestPage([], False)
    found: list[tuple[str, list[UsageLeaf]]] = []
    pages = rated_leaves(session, invoice.organisation_id, invoice.period, page=max(limit, _FEWEST) + 2, after=after)
    async with aclosing(pages):
        async for leaves in pages:
            own = (leaf for leaf in leaves if leaf.currency == invoice.currency)
            found += [(name, list(part)) for name, part in groupby(own, key=lambda leaf: leaf.event_id)]
            if len(found) > limit:
                break
    requests = await _requests(session, opened, found[:limit])
    return RequestPage(requests, len(found) > limit)


async def proof_lines(database: Database, opened: OpenedProof) -> AsyncGenerator[bytes]:
    """The file of the proof, in pieces of many lines, each read in a transaction of its own."""
    yield head_line(opened.head)
    after, more, before = "", True, b""
    while more:
        async with database.reading() as session:
            page = await requests_of(session, opened, after)
        if page.requests:
            yield before + b",\n".join(map(request_line, page.requests))
            after, before = page.requests[-1].event_id, b",\n"
        more = page.more
    yield b"\n]}\n" if before else b"]}\n"


async def _requests(
    session: AsyncSession, opened: OpenedProof, found: Sequence[tuple[str, list[UsageLeaf]]]
) -> list[Request]:
    names = [name for name, _ in found]
    ratings = await _ratings(session, names)
    ended = await ended_leaves(session, opened.invoice.organisation_id, names, opened.issued_seq)
    corrected = [name for name in names if any(each.correction for each in ratings[name])]
    corrections = await _corrections(session, opened, corrected)
    period, requests = opened.invoice.period or "", list[Request]()
    shown: list[StoredLeaf] = []
    counts: list[tuple[str, int, int | None, bool]] = []
    for name in names:
        billed, before, unpriced = _billed(ratings[name], period)
        leaves = [*([ended[name]] if name in ended else []), *corrections.get(name, ())[:billed]]
        shown += leaves
        counts.append((name, len(leaves), before, unpriced))
    proved = iter(await _shown(session, shown, opened.signed))
    for (name, count, before, unpriced), (_, entries) in zip(counts, found, strict=True):
        requests.append(
            Request(
                event_id=name,
                entries=[Entry(LineName(*each.line), each.quantity, each.nano) for each in entries],
                leaves=[next(proved) for _ in range(count)],
                late=is_late(name, period),
                billed_as=before,
                unpriced=unpriced,
            )
        )
    return requests


def _billed(ratings: Sequence[_Rating], period: str) -> tuple[int, int | None, bool]:
    # By which correction it counts now, by which an earlier invoice billed it, and whether it has lost its price.
    own = [each for each in ratings if each.period == period]
    invariant(bool(own), "what an invoice bills was rated for its period")
    before = next((each for each in ratings if each.revision == own[0].revision - 1), None)
    billed_before = before.correction if before is not None and before.state == "rated" else None
    return own[-1].correction, billed_before, own[-1].state == "unmatched"


async def _ratings(session: AsyncSession, names: Sequence[str]) -> dict[str, list[_Rating]]:
    row, found = UsageRatingRow, {name: list[_Rating]() for name in names}
    query = select(row.event_id, row.revision, row.period, row.state, row.correction).where(row.event_id.in_(names))
    for values in await session.execute(query.order_by(row.event_id, row.revision)):
        found[values[0]].append(_Rating(*values))
    return found


async def _corrections(session: AsyncSession, opened: OpenedProof, names: Sequence[str]) -> dict[str, list[StoredLeaf]]:
    found: dict[str, list[StoredLeaf]] = {f"usage:{name}": [] for name in names}
    after = 0
    while names:
        wanted = LeafFilter(actions=(CORRECTED,), after=after, before=opened.issued_seq, oldest_first=True)
        leaves = await read(session, opened.invoice.organisation_id, wanted, _LEAVES)
        for leaf in leaves:
            found.get(leaf.resource, []).append(leaf)
        if len(leaves) < _LEAVES:
            break
        after = leaves[-1].seq
    return {resource.removeprefix("usage:"): leaves for resource, leaves in found.items()}


async def _issue_of(session: AsyncSession, invoice: Invoice) -> StoredLeaf:
    before = None
    action = EMPTIED if invoice.state == "empty" else ISSUED
    while leaves := await read(session, invoice.organisation_id, LeafFilter(actions=(action,), before=before), _LEAVES):
        for leaf in leaves:
            if leaf.resource == f"invoice:{invoice.id}":
                return leaf
        before = leaves[-1].seq
    raise NotFound("The journal says nothing of the issue of this invoice.", code="not_journalled")


async def _shown(session: AsyncSession, leaves: Sequence[StoredLeaf], signed: SignedCheckpoint) -> list[Leaf]:
    proofs = await inclusion_proofs(session, [leaf.seq - 1 for leaf in leaves], signed.checkpoint.size)
    return [
        Leaf(leaf.seq - 1, leaf.leaf.decode(), [b64encode(each).decode() for each in hashes])
        for leaf, hashes in zip(leaves, proofs, strict=True)
    ]
