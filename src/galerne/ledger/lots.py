"""Lots of credit and the order in which they are burned. Pure: no clock, no database.

The order is the one that sellers of usage agree on: the lower priority number first (Stripe's credit grants: 0 to 100,
50 if nothing is said), then the earliest expiry, then what was given before what was paid for, then the oldest.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from galerne.kernel import invariant

HIGHEST_PRIORITY = 0
LOWEST_PRIORITY = 100
USUAL_PRIORITY = 50

_NEVER = datetime.max.replace(tzinfo=UTC)


class LotKind(StrEnum):
    """Whether somebody paid for the credit."""

    PAID = "paid"
    PROMOTIONAL = "promotional"


class LotSource(StrEnum):
    """What a lot comes from; `transfer` is money that was posted to the account without saying more."""

    PAYMENT = "payment"
    INVOICE = "invoice"
    GRANT = "grant"
    CORRECTION = "correction"
    TRANSFER = "transfer"


class LotChange(StrEnum):
    """What an entry does to a lot: `restore` gives back what was burned for usage that was charged wrongly."""

    GRANT = "grant"
    BURN = "burn"
    EXPIRE = "expire"
    VOID = "void"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class LotTerms:
    """What decides when a lot is burned. `expires_at` None: never; at that instant it is no longer valid."""

    id: str
    kind: LotKind
    priority: int
    effective_at: datetime
    expires_at: datetime | None

    def valid_at(self, when: datetime) -> bool:
        """Whether it may be used for what happened then."""
        return self.effective_at <= when < (self.expires_at or _NEVER)


def burn_order(terms: LotTerms) -> tuple[int, datetime, bool, datetime, str]:
    """The key by which lots are sorted to be burned: priority, expiry, promotional before paid, oldest, id."""
    return (terms.priority, terms.expires_at or _NEVER, terms.kind is LotKind.PAID, terms.effective_at, terms.id)


@dataclass(frozen=True, slots=True)
class Part:
    """So much of one lot."""

    lot_id: str
    nano: int


@dataclass(slots=True)
class _Open:
    key: tuple[int, datetime, bool, datetime, str]
    terms: LotTerms
    nano: int


class LotBook:
    """What is left of an account's lots while usage is taken from them, one transfer after the other."""

    def __init__(self, lots: Iterable[tuple[LotTerms, int]] = ()) -> None:
        self._open: list[_Open] = []
        for terms, nano in lots:
            self.add(terms, nano)

    @property
    def total_nano(self) -> int:
        """What is left of all lots."""
        return sum(each.nano for each in self._open)

    def left_nano(self, lot_id: str) -> int:
        """What is left of one."""
        return sum(each.nano for each in self._open if each.terms.id == lot_id)

    def add(self, terms: LotTerms, nano: int) -> None:
        """A lot that can be burned from now on, or more of one that is known."""
        for each in self._open:
            if each.terms.id == terms.id:
                each.nano += nano
                return
        if nano:
            insort(self._open, _Open(burn_order(terms), terms, nano), key=lambda each: each.key)

    def take(self, nano: int, when: datetime) -> list[Part]:
        """Burn `nano` for what happened at `when`: which lots pay how much of it, in this order.

        Lots that were valid then, in burn order. Only if those are not enough, and the account has more because an
        expiry was not booked yet: lots that became effective later, then those that had expired, the last one first.
        Less comes back when all lots together have less.
        """
        taken: list[Part] = []
        for each in self._open:
            if each.terms.valid_at(when):
                nano = _take(each, nano, taken)
                if not nano:
                    break
        if nano:
            for each in self._last_resorts(when):
                nano = _take(each, nano, taken)
        if taken:
            self._open = [each for each in self._open if each.nano]
        return taken

    def remove(self, part: Part) -> None:
        """Take a part of one lot, which has as much, out of the book: it expired or was voided."""
        (found,) = (each for each in self._open if each.terms.id == part.lot_id)
        invariant(0 < part.nano <= found.nano, "more is taken from a lot than it has")
        found.nano -= part.nano
        self._open = [each for each in self._open if each.nano]

    def _last_resorts(self, when: datetime) -> list[_Open]:
        later = [each for each in self._open if each.terms.effective_at > when]
        expired = [each for each in self._open if (each.terms.expires_at or _NEVER) <= when and each not in later]
        return later + sorted(expired, key=lambda each: (each.terms.expires_at or _NEVER, each.key), reverse=True)


def _take(lot: _Open, nano: int, taken: list[Part]) -> int:
    part = min(lot.nano, nano)
    if part:
        lot.nano -= part
        taken.append(Part(lot.terms.id, part))
    return nano - part


@dataclass(frozen=True, slots=True)
class Burned:
    """One entry by which a transfer burned a lot, and what of it was not given back yet."""

    sequence: int
    lot_id: str
    left_nano: int


def unwind(burned: Sequence[Burned], nano: int) -> list[tuple[int, Part]]:
    """How `nano` goes back to the lots that it came from, last burned first: the entries' sequences, and the parts.

    It follows what was recorded, never what the order would be today (OpenMeter's rule for corrections). Less comes
    back when less is left to give back.
    """
    parts: list[tuple[int, Part]] = []
    for each in sorted(burned, key=lambda one: one.sequence, reverse=True):
        part = min(each.left_nano, nano)
        if part:
            parts.append((each.sequence, Part(each.lot_id, part)))
            nano -= part
    return parts
