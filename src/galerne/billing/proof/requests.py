"""What is checked of each request on an invoice, one by one and in order; memory does not grow with them. Pure."""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from galerne.billing.proof.findings import Findings
from galerne.billing.proof.form import Entry, Leaf, Request
from galerne.billing.proof.leaves import CLASSES, OTHER, Amounts, LineName, usage_leaf_hash
from galerne.billing.proof.reading import parse_leaf
from galerne.journal.checkpoint import Checkpoint
from galerne.journal.merkle import Frontier, ProofRefused, hash_leaf, verify_inclusion
from galerne.ledger.amounts import half_even

ENDED = ("inference.completed", "inference.cancelled", "inference.failed", "inference.recovered")
"""The actions of the leaf that a request leaves when it ends."""
CORRECTED = "usage.correct"
"""The action of the leaf of a correction."""
_EMBEDDED = "embeddings"
_MILLIS = 12  # hexadecimal digits of an id that say when it was made (RFC 9562 section 5.7)
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens")
_ID_DIGITS = 32

Counts = tuple[int, int, int]
_NOTHING: Counts = (0, 0, 0)


@dataclass(slots=True)
class LeafChecker:
    """Checks that leaves are in the journal under one checkpoint; None where there is none to rely on."""

    checkpoint: Checkpoint | None
    findings: Findings
    count: int = 0
    _uncovered: bool = False

    def check(self, shown: Leaf, where: str) -> dict[str, Any] | None:
        """The leaf's fields, whatever was found of it; None for what is no leaf at all."""
        self.count += 1
        self._check_place(shown, where)
        fields = parse_leaf(shown.leaf)
        if fields is None or not isinstance(fields.get("detail"), dict) or not isinstance(fields.get("actor"), dict):
            self.findings.add("included", where, "a leaf of the journal", shown.leaf[:60])
            return None
        self.findings.same("included", f"{where}, leaf's version and number", (1, shown.index + 1), _place(fields))
        return fields

    def _check_place(self, shown: Leaf, where: str) -> None:
        checkpoint = self.checkpoint
        if checkpoint is None:
            return
        if not 0 <= shown.index < checkpoint.size:
            if not self._uncovered:  # one finding says it for all that follow
                expected = f"a checkpoint of more than {shown.index} leaves"
                self.findings.add("checkpoint", where, expected, f"one of {checkpoint.size}")
            self._uncovered = True
            return
        try:
            hashes = [_decoded(each) for each in shown.proof]
            verify_inclusion(hash_leaf(shown.leaf.encode()), shown.index, checkpoint.size, hashes, checkpoint.root)
        except (ProofRefused, ValueError) as problem:
            place = f"leaf {shown.index + 1} of the journal as it was written"
            self.findings.add("included", where, place, getattr(problem, "message", str(problem)))


@dataclass(frozen=True, slots=True)
class Terms:
    """What requests are checked against: whose they are, in which month they are billed (`2026-11`), at which prices.

    `prices` are nano-units for one unit, exact, by line; a line that is not among them is not on the invoice.
    None is for a line whose price for a request the invoice does not say.
    """

    organisation_id: str
    period: str
    prices: Mapping[LineName, Fraction | None]


@dataclass(slots=True)
class RequestChecker:
    """Takes the requests in the order of the file, and remembers the sum of each line and the edge of their tree."""

    terms: Terms
    leaves: LeafChecker
    findings: Findings
    sums: dict[LineName, Amounts] = field(default_factory=dict[LineName, Amounts])
    tree: Frontier = field(default_factory=Frontier)
    count: int = 0
    late: int = 0
    paid_nano: int = 0
    _last: str = ""

    def take(self, request: Request) -> None:
        """Check the next one."""
        self.count += 1
        where = f"request {self.count} ({request.event_id[:40]})"
        self._check_order(request, where)
        self._check_period(request, where)
        self._add_up(request, where)
        counted = self._check_leaves(request, where)
        if counted is not None:
            self._check_tokens(request, counted, where)
        self._check_cost(request, counted, where)

    def _check_order(self, request: Request, where: str) -> None:
        if request.event_id == self._last:
            self.findings.add("order", where, "each request once", "the same request again")
        elif request.event_id < self._last:
            self.findings.add("order", where, f"an id after {self._last[:40]}", request.event_id[:40])
        self._last = max(self._last, request.event_id)

    def _check_period(self, request: Request, where: str) -> None:
        month = _month(request.event_id)
        self.late += request.late
        if month is None:
            self.findings.add("period", where, "an id that begins with its time", request.event_id[:40])
        elif month > self.terms.period or (month < self.terms.period) != request.late:
            expected = f"before {self.terms.period}, for it is called late" if request.late else self.terms.period
            self.findings.add("period", where, expected, month)

    def _add_up(self, request: Request, where: str) -> None:
        if not request.entries:
            self.findings.add("format", where, "what it counts on a line", "nothing")
        before: LineName | None = None
        for entry in request.entries:
            line = entry.line
            if before is not None and line.place <= before.place:
                self.findings.add("order", where, "lines in their order, each once", line.text)
            before = line
            if line not in self.terms.prices:
                self.findings.add("line", where, "a line of this invoice", line.text)
            quantity, nano = self.sums.get(line, (0, 0))
            self.sums[line] = Amounts(quantity + entry.quantity, nano + entry.nano)
            self.tree.append(usage_leaf_hash(request.event_id, entry.line, entry.quantity, entry.nano))

    def _check_leaves(self, request: Request, where: str) -> list[Counts] | None:
        # What each leaf says was counted; None where one of them cannot say it.
        if not request.leaves:
            self.findings.add("complete", where, "what the journal says of it", "nothing")
            return None
        ended = self.leaves.check(request.leaves[0], where)
        counted = None if ended is None else self._ended(ended, request, where)
        if counted is None:
            return None
        found = [counted]
        for number, shown in enumerate(request.leaves[1:], 1):
            named = f"{where}, correction {number}"
            fields = self.leaves.check(shown, named)
            counts = None if fields is None else self._corrected(fields, request, named)
            if counts is None:
                return None
            found.append(counts)
        return found

    def _ended(self, fields: dict[str, Any], request: Request, where: str) -> Counts | None:
        same, detail, owner = self.findings.same, fields["detail"], fields["actor"].get("organisation_id")
        same("owner", where, self.terms.organisation_id, owner)
        same("included", f"{where}, request of its leaf", request.event_id, fields.get("request_id"))
        action = fields.get("action")
        if action not in ENDED:
            self.findings.add("included", f"{where}, action of its leaf", "the end of a request", action)
        for model in {entry.line.model_id for entry in request.entries}:
            if not str(fields.get("resource")).startswith(f"model:{model}@"):
                self.findings.add("tokens", f"{where}, model", fields.get("resource"), model)
        paid = detail.get("paid_nano")
        self.paid_nano += paid if isinstance(paid, int) else 0
        return self._counts(detail, where)

    def _corrected(self, fields: dict[str, Any], request: Request, where: str) -> Counts | None:
        same = self.findings.same
        same("owner", where, self.terms.organisation_id, fields["actor"].get("organisation_id"))
        same("included", f"{where}, action of its leaf", CORRECTED, fields.get("action"))
        same("included", f"{where}, request of its leaf", f"usage:{request.event_id}", fields.get("resource"))
        return self._counts(fields["detail"], where)

    def _counts(self, detail: dict[str, Any], where: str) -> Counts | None:
        counts = tuple(detail.get(name) for name in _COUNTS)
        if all(isinstance(count, int) and count >= 0 for count in counts):
            return counts  # type: ignore[return-value]  # three integers, as was just seen
        self.findings.add("included", where, "a leaf that says how many tokens were used", str(counts))
        return None

    def _check_tokens(self, request: Request, counted: list[Counts], where: str) -> None:
        billed = request.billed_as
        if billed is not None and not 0 <= billed < len(counted):
            self.findings.add("format", where, f"a leaf from 0 to {len(counted) - 1} that was billed", billed)
            return
        before = _NOTHING if billed is None else counted[billed]
        after = _NOTHING if request.unpriced else counted[-1]
        embeds = any(entry.line.token_class == _EMBEDDED for entry in request.entries)
        on_lines: dict[int, int] = {}
        for entry in request.entries:
            index = CLASSES.get(entry.line.token_class)
            if index is None:
                self.findings.add("tokens", where, "a class of tokens that requests have", entry.line.token_class)
                return
            on_lines[index] = on_lines.get(index, 0) + entry.quantity
        for index, name in enumerate(_COUNTS):
            expected = after[index] - before[index]
            if expected and embeds and index not in on_lines:
                continue  # of an embedding only its input must have a price
            self.findings.same("tokens", f"{where}, {name}", expected, on_lines.get(index, 0))

    def _check_cost(self, request: Request, counted: list[Counts] | None, where: str) -> None:
        entries: dict[int, Entry] = {CLASSES.get(entry.line.token_class, OTHER): entry for entry in request.entries}
        prices = {index: self.terms.prices.get(entry.line) for index, entry in entries.items()}
        if len(entries) < len(request.entries) or None in prices.values() or OTHER in prices:
            return  # rated under two prices, or under one that the invoice does not say: sums are checked all the same
        known = {index: price for index, price in prices.items() if price is not None}
        billed = request.billed_as
        if request.unpriced:
            return
        if billed is None:
            after, before = _parts([entries[i].quantity if i in entries else 0 for i in range(3)], known), (0, 0, 0)
        elif counted is not None and 0 <= billed < len(counted) and _priced((*counted[-1:], counted[billed]), known):
            after, before = _parts(counted[-1], known), _parts(counted[billed], known)
        else:
            return
        for index, entry in entries.items():
            self.findings.same("price", f"{where}, {entry.line.token_class}", after[index] - before[index], entry.nano)


def _parts(counts: Sequence[int], prices: Mapping[int, Fraction]) -> Counts:
    # Classes share a request's cost by rounding the running sum: they add up to the cost rounded once.
    exact, cost, parts = Fraction(0), 0, [0, 0, 0]
    for index, count in enumerate(counts):
        exact += count * prices.get(index, 0)
        before, cost = cost, half_even(exact.numerator, exact.denominator)
        parts[index] = cost - before
    return parts[0], parts[1], parts[2]


def _priced(counts: Sequence[Counts], prices: Mapping[int, Fraction]) -> bool:
    return all(index in prices or not each[index] for each in counts for index in range(3))


def _place(fields: dict[str, Any]) -> tuple[Any, Any]:
    return fields.get("v"), fields.get("seq")


def moment_of(event_id: str) -> datetime | None:
    """When a request began, in UTC to the second, by the beginning of its id (RFC 9562); None if it says none."""
    try:
        millis = int(event_id[:_MILLIS], 16)
        return datetime.fromtimestamp(millis // 1000, UTC) if len(event_id) == _ID_DIGITS else None
    except (ValueError, OverflowError, OSError):
        return None


def is_late(event_id: str, period: str) -> bool:
    """Whether a request was made in an earlier month than the period (`2026-11`) in which it is billed."""
    month = _month(event_id)
    return month is not None and month < period


def _month(event_id: str) -> str | None:
    moment = moment_of(event_id)
    return None if moment is None else f"{moment.year:04d}-{moment.month:02d}"


def _decoded(encoded: str) -> bytes:
    found = b64decode(encoded, validate=True)
    if b64encode(found).decode() != encoded:
        raise ValueError("a hash is not written as base64 writes it")
    return found
