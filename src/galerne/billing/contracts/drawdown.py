"""What a contract makes due: instalments, usage, overage, true-ups, minimums, fees. Pure.

One walk over the months in the order of time, in which usage draws from the commitments that are open, of which the
one that ends first comes first. What was charged is never charged again, also not by an amendment: a postpaid one
costs the most of what was used of it and what its schedule says, and all that is used is charged once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from galerne.billing.charges import Charge, ChargeKind, Period, rounded
from galerne.billing.contracts.terms import Commitment, ContractTerms
from galerne.billing.prices.pricing import PPM

_LAST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Version:
    """Terms and the instant from which they count."""

    effective_from: datetime
    terms: ContractTerms


@dataclass(frozen=True, slots=True)
class Used:
    """What one month's usage was worth by the contract's prices, and how it was covered by commitments."""

    period: Period
    nano: int
    covered_nano: int
    beyond_nano: int


@dataclass(slots=True)
class _Walk:
    contract_id: str
    covered: dict[str, int] = field(default_factory=dict[str, int])
    billed: dict[str, int] = field(default_factory=dict[str, int])
    charges: list[Charge] = field(default_factory=list[Charge])
    used: list[Used] = field(default_factory=list[Used])

    def charge(self, terms: ContractTerms, kind: ChargeKind, what: str, period: Period, nano: int) -> None:
        if nano <= 0:
            return
        advance = kind in ("recurring", "commitment")
        due_at = period.start if advance else period.end - _LAST
        self.charges.append(
            Charge(
                id=f"{self.contract_id}:{kind}:{what}:{due_at:%Y%m%dT%H%M%S}",
                kind=kind,
                description=_WORDS[kind].format(what=what),
                currency=terms.currency,
                period=period,
                quantity=1,
                unit_price_nano=nano,
                amount_nano=nano,
                due_at=due_at,
            )
        )


_WORDS: Mapping[ChargeKind, str] = {
    "recurring": "Monthly fee",
    "commitment": "Commitment {what}, instalment",
    "usage": "Usage",
    "overage": "Usage beyond the commitment",
    "true_up": "Commitment {what}, true-up",
    "minimum": "Minimum of the month",
}


def contract_charges(contract_id: str, versions: Sequence[Version], usage: Mapping[Period, int]) -> list[Charge]:
    """Every charge of the whole term, by when it is due, for usage in nano-units by month (`ContractTerms.periods`).

    What is used in a month is due in its last second, as is a true-up; fees and instalments when they say.
    """
    return sorted(_walked(contract_id, versions, usage).charges, key=lambda charge: charge.due_at)


def drawn(versions: Sequence[Version], usage: Mapping[Period, int]) -> list[Used]:
    """How the usage of each month was covered by commitments."""
    return _walked("", versions, usage).used


def month_of(periods: Iterable[Period], at: datetime) -> Period | None:
    """The month that `at` lies in."""
    return next((period for period in periods if period.holds(at)), None)


def _walked(contract_id: str, versions: Sequence[Version], usage: Mapping[Period, int]) -> _Walk:
    walk = _Walk(contract_id)
    longest = max((version.terms for version in versions), key=lambda terms: terms.months)
    for month in longest.periods():
        at_start, at_end = (_in_force(versions, at) for at in (month.start, month.end - _LAST))
        if month.end <= at_start.end:
            walk.charge(at_start, "recurring", "", month, at_start.fee_nano)
        if month.end <= at_end.end:
            _use(walk, at_end, month, usage.get(month, 0))
        _instalments(walk, versions, month)
    return walk


def _in_force(versions: Sequence[Version], at: datetime) -> ContractTerms:
    return next((each.terms for each in reversed(versions) if each.effective_from <= at), versions[0].terms)


def _use(walk: _Walk, terms: ContractTerms, month: Period, nano: int) -> None:
    rest, usage = nano, 0
    for commitment in sorted(terms.commitments, key=lambda each: (each.end, each.id)):
        if not commitment.start <= month.start < commitment.end:
            continue
        taken = min(rest, max(0, commitment.nano - walk.covered.get(commitment.id, 0)))
        walk.covered[commitment.id] = walk.covered.get(commitment.id, 0) + taken
        rest -= taken
        if commitment.kind == "postpaid":
            due = max(0, walk.covered[commitment.id] - walk.billed.get(commitment.id, 0))
            walk.billed[commitment.id] = walk.billed.get(commitment.id, 0) + due
            usage += due
    walk.used.append(Used(month, nano, nano - rest, rest))
    if not terms.commitments:
        usage, rest = rest, 0
    walk.charge(terms, "usage", "", month, usage)
    walk.charge(terms, "overage", "", month, rounded(Fraction(rest * terms.overage_ppm, PPM)))
    walk.charge(terms, "minimum", "", month, terms.minimum_nano - nano)


def _instalments(walk: _Walk, versions: Sequence[Version], month: Period) -> None:
    due: list[tuple[datetime, ContractTerms, Commitment, int]] = []
    for number, version in enumerate(versions):
        until = versions[number + 1].effective_from if number + 1 < len(versions) else None
        for commitment in version.terms.commitments:
            for at, nano in _schedule(commitment):
                counts = version.effective_from <= at and (until is None or at < until)
                if month.holds(at) and (counts or (number == 0 and at < version.effective_from)):
                    due.append((at, version.terms, commitment, nano))
    for at, terms, commitment, nano in sorted(due, key=lambda each: (each[0], each[2].id)):
        billed = walk.billed.get(commitment.id, 0)
        if commitment.kind == "prepaid":
            walk.billed[commitment.id] = billed + nano
            walk.charge(terms, "commitment", commitment.id, Period(at, commitment.end), nano)
        else:
            target = sum(part for when, part in _schedule(commitment) if when <= at)
            walk.billed[commitment.id] = max(billed, target)
            walk.charge(terms, "true_up", commitment.id, Period(month.start, at + _LAST), target - billed)


def _schedule(commitment: Commitment) -> list[tuple[datetime, int]]:
    if commitment.kind == "postpaid" and not commitment.instalments:
        return [(commitment.end - _LAST, commitment.nano)]
    return [(each.due_at, each.nano) for each in commitment.instalments]
