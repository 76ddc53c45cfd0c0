"""A whole proof made in memory by the code that rates, settles and journals; small, and the same each time."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec

from galerne.billing import ModelPrices, RatedUsage, Rater, UsedTokens
from galerne.billing.documents.document import Line, compute
from galerne.billing.proof import (
    FORMAT,
    ISSUED,
    VERSION,
    Entry,
    Head,
    Leaf,
    LineName,
    Request,
    UsageLine,
    canonical,
    head_line,
    request_line,
    usage_leaf_hash,
)
from galerne.governance import SYSTEM
from galerne.journal import Checkpoint, Signer, hash_leaf, root_of
from galerne.journal import Entry as Journalled
from galerne.journal.leaf import encode
from galerne.journal.note import sign_note
from tests.billing.books import CUSTOMER, START, full_book
from tests.billing.documents.samples import S20, draft
from tests.flights import ended, flight_of
from tests.journal.trees import Tree

ORIGIN = "galerne.example.com/journal"
SIGNER = Signer(ORIGIN, b"\x07" * 32)
STRANGER = Signer(ORIGIN, b"\x08" * 32)
PERIOD = "2026-12"
MONTH = START + timedelta(days=30)
BOOK = full_book()


@dataclass(frozen=True)
class Used:
    """A request: who, when, how, how many tokens; `counts` after the first are corrections."""

    event_id: str
    at: datetime
    counts: tuple[tuple[int, int, int], ...]
    organisation_id: str = "org"
    model: str = "large"
    endpoint: str = "chat.completions"
    tier: str = "standard"
    zone: str = ""
    billed_as: int | None = None

    def tokens(self, counts: tuple[int, int, int]) -> UsedTokens:
        how = (self.model, self.endpoint, self.tier, self.zone)
        return UsedTokens(self.event_id, self.at, None, "key", self.organisation_id, *how, *counts)


def used(number: int, minutes: int, *counts: tuple[int, int, int], **how: Any) -> Used:
    at = MONTH + timedelta(minutes=minutes)
    return Used(f"{int(at.timestamp() * 1000):012x}7{number:019x}", at, counts, **how)


USES = (
    used(1, -900, (900, 0, 40), model="small"),
    used(2, -800, (500, 0, 50), (400, 0, 40), billed_as=0),
    used(3, 10, (1234, 0, 77)),
    used(4, 11, (1235, 301, 78), tier="priority"),
    used(5, 12, (7, 0, 0), organisation_id="other"),
    used(6, 13, (20_000, 0, 0), model="small", endpoint="embeddings"),
    used(7, 14, (1, 1, 1), zone="de"),
    used(8, 15, (100_001, 3, 999), tier="batch", zone="fr"),
    used(9, 16, (3, 0, 5), (2, 0, 4)),
    used(10, 40_000, (55_555, 44_444, 33_333)),
)
"""The first two are late ones of November; the second was billed then, and is corrected now."""


def rated(request: Used, counts: tuple[int, int, int]) -> list[RatedUsage]:
    return Rater(BOOK, lambda _organisation, _at: CUSTOMER).rate([request.tokens(counts)]).usage


def entries_of(request: Used) -> list[Entry]:
    sums: dict[LineName, list[int]] = {}
    parts = [(1, request.counts[-1])]
    if request.billed_as is not None:
        parts.append((-1, request.counts[request.billed_as]))
    for sign, counts in parts:
        for each in rated(request, counts):
            known = sums.setdefault(LineName(*each.line), [0, 0])
            known[0] += sign * each.quantity
            known[1] += sign * each.nano
    return [Entry(line, *amounts) for line, amounts in sorted(sums.items(), key=lambda item: item[0].place)]


def settlement_of(request: Used) -> Journalled:
    prices = ModelPrices(BOOK, CUSTOMER, request.model)
    flight = flight_of(
        request.event_id,
        request.organisation_id,
        request.at,
        model=request.model,
        endpoint=request.endpoint,
        tier=request.tier,
        zone=request.zone,
        rates=prices.rates(request.endpoint, request.tier, request.zone, request.at),
    )
    return ended(flight, request.counts[0], request.at).entry


def correction_of(request: Used, counts: tuple[int, int, int]) -> Journalled:
    detail: dict[str, str | int | bool | None] = dict(
        zip(("input_tokens", "cached_tokens", "output_tokens"), counts, strict=True)
    )
    resource = f"usage:{request.event_id}"
    whose = replace(SYSTEM, organisation_id=request.organisation_id)
    return Journalled(
        action="usage.correct", actor=whose, resource=resource, outcome="done", at=request.at, detail=detail
    )


class Journal:
    """A journal in memory."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []

    def copy(self) -> "Journal":
        other = Journal()
        other.leaves = list(self.leaves)
        return other

    def append(self, entry: Journalled) -> int:
        self.leaves.append(encode(entry, len(self.leaves) + 1))
        return len(self.leaves) - 1

    def shown(self, index: int, size: int | None = None) -> Leaf:
        tree = Tree(map(hash_leaf, self.leaves))
        hashes = tree.inclusion_proof(index, size)
        return Leaf(index, self.leaves[index].decode(), [base64_of(each) for each in hashes])

    def checkpoint(self, size: int | None = None, signer: Signer = SIGNER) -> str:
        size = len(self.leaves) if size is None else size
        root = root_of([hash_leaf(leaf) for leaf in self.leaves[:size]])
        return sign_note(Checkpoint(signer.name, size, root).text, [signer])


@dataclass(frozen=True)
class Sample:
    """A proof with the journal that it is from."""

    head: Head
    requests: tuple[Request, ...]
    journal: Journal
    other: Leaf

    def file(self) -> bytes:
        return head_line(self.head) + b",\n".join(map(request_line, self.requests)) + b"\n]}\n"

    def fields(self) -> dict[str, Any]:
        return json.loads(self.file())


@cache
def sample(uses: Sequence[Used] = USES, organisation_id: str = "org") -> Sample:
    journal, places = Journal(), dict[str, list[int]]()
    for request in uses:
        journal.append(Journalled(action="key.created", actor=SYSTEM, resource="x", outcome="done", at=START))
        places[request.event_id] = [journal.append(settlement_of(request))]
    for request in uses:
        for counts in request.counts[1:]:
            places[request.event_id].append(journal.append(correction_of(request, counts)))
    own = [request for request in uses if request.organisation_id == organisation_id]
    entries = {request.event_id: entries_of(request) for request in own}
    hashes = [
        usage_leaf_hash(name, each.line, each.quantity, each.nano) for name, part in entries.items() for each in part
    ]
    invoice, lines = invoice_of(entries, organisation_id, hashes)
    issued = journal.append(issue_of(invoice))
    journal.append(Journalled(action="key.created", actor=SYSTEM, resource="y", outcome="done", at=START))
    requests = tuple(
        Request(
            event_id=request.event_id,
            entries=entries[request.event_id],
            leaves=[journal.shown(index) for index in places[request.event_id]],
            late=request.at < MONTH,
            billed_as=request.billed_as,
        )
        for request in own
    )
    head = Head(FORMAT, VERSION, journal.checkpoint(), journal.shown(issued), invoice, lines)
    stranger = next(request for request in uses if request.organisation_id != organisation_id)
    return Sample(head, requests, journal, journal.shown(places[stranger.event_id][0]))


def issue_of(invoice: dict[str, Any]) -> Journalled:
    detail: dict[str, str | int | bool | None] = {
        "number": invoice["document"]["draft"]["number"],
        "sha256": sha256(canonical(invoice)).hexdigest(),
        "usage_root": invoice["usage_root"],
        "usage_size": invoice["usage_size"],
    }
    resource, at = f"invoice:{invoice['invoice_id']}", datetime(2027, 1, 1, tzinfo=UTC)
    return Journalled(action=ISSUED, actor=SYSTEM, resource=resource, outcome="done", at=at, detail=detail)


def issued_again(fields: dict[str, Any]) -> bytes:
    """The leaf that the issue of a forged invoice would have left, where the true one's is."""
    return encode(issue_of(fields["invoice"]), fields["issued"]["index"] + 1)


def leaf_hashes(requests: Sequence[dict[str, Any]]) -> list[bytes]:
    return [
        usage_leaf_hash(row["event_id"], LineName(**each["line"]), each["quantity"], each["nano"])
        for row in requests
        for each in row["entries"]
    ]


def meaning_of(content: bytes) -> Any:
    """What a file says, wherever its note has bits that no signature uses left out."""
    fields = json.loads(content)
    text, _, signature = fields["checkpoint"].rpartition(" ")
    return {**fields, "checkpoint": (text, base64.b64decode(signature))}


def invoice_of(
    entries: dict[str, list[Entry]], organisation_id: str, hashes: list[bytes]
) -> tuple[dict[str, Any], list[UsageLine | None]]:
    sums: dict[LineName, list[int]] = {}
    for part in entries.values():
        for each in part:
            known = sums.setdefault(each.line, [0, 0])
            known[0] += each.quantity
            known[1] += each.nano
    lines = [
        Line(
            id=str(number),
            name=f"{key.model_id}: {key.token_class}",
            quantity=Decimal(quantity),
            price=_price(key),
            base_quantity=1_000_000,
            vat=S20,
            item_id=key.rate_id,
        )
        for number, (key, (quantity, _)) in enumerate(sorted(sums.items()), 1)
    ]
    lines.append(Line(id="99", name="Team plan", quantity=Decimal(3), price=Decimal("29.90"), vat=S20))
    document = compute(draft(number="FR-2026-000007", lines=tuple(lines)))
    invoice = {
        "invoice_id": "0" * 31 + "7",
        "organisation_id": organisation_id,
        "period": PERIOD,
        "language": "en",
        "document": msgspec.to_builtins(document),
        "usage_root": root_of(hashes).hex(),
        "usage_size": len(hashes),
        "version": 1,
    }
    return invoice, [*(UsageLine(key, nano) for key, (_, nano) in sorted(sums.items())), None]


def _price(key: LineName) -> Decimal:
    name, _, factor = key.rate_id.partition("*")
    rate = next(each for each in BOOK.rates if each.id == name)
    top, _, bottom = (factor or "1").partition("/")
    return Decimal(rate.nano or 0).scaleb(-9) * int(top) / int(bottom or 1)


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()
