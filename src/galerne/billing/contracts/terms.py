"""A contract's terms as values, what makes them acceptable, and what an amendment may change. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from galerne.billing.billing_calendar import months_after, zone_of
from galerne.billing.charges import Period
from galerne.billing.prices.pricing import PPM
from galerne.kernel import BadRequest, Conflict

MOST_NANO = 10**18
"""A thousand million of a currency."""
_MOST_MONTHS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Instalment:
    """A part of a commitment and when it is due."""

    due_at: datetime
    nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """An amount that the customer commits to spend on usage from `start` until `end`.

    `prepaid` is paid by its instalments, and usage draws from it. `postpaid` is paid as it is used, and trued up to
    the sum of the instalments that are due; without any, to the whole at its end.
    """

    id: str
    kind: Literal["prepaid", "postpaid"]
    nano: int
    start: datetime
    end: datetime
    instalments: tuple[Instalment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What happens at the end unless notice is given: so many months more, with amounts changed by `uplift_ppm`."""

    months: int
    notice_days: int = 30
    uplift_ppm: int = PPM


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractTerms:
    """What was agreed. Times are UTC; months run from `start` by the calendar of `time_zone`.

    Usage beyond the commitments costs `overage_ppm` of its price. Less usage than `minimum_nano` in a month is charged
    up to it; `fee_nano` is due at the beginning of each month. `price_list` names the list that usage is rated by,
    `sla` holds service levels for whoever measures them.
    """

    currency: str
    start: datetime
    months: int
    time_zone: str = "UTC"
    commitments: tuple[Commitment, ...] = ()
    overage_ppm: int = PPM
    minimum_nano: int = 0
    fee_nano: int = 0
    price_list: str | None = None
    renewal: Renewal | None = None
    payment_days: int = 30
    purchase_order: str | None = None
    sla: Mapping[str, str | int | bool] = field(default_factory=dict[str, str | int | bool])

    @property
    def end(self) -> datetime:
        """The first instant after the term."""
        return months_after(self.start, self.time_zone, self.months)

    def periods(self) -> list[Period]:
        """The months of the term."""
        bounds = [months_after(self.start, self.time_zone, number) for number in range(self.months + 1)]
        return [Period(*pair) for pair in pairwise(bounds)]


def check_terms(terms: ContractTerms) -> None:
    """Raise `BadRequest` naming the field if nothing can be agreed like this."""
    zone_of(terms.time_zone)
    code = terms.currency
    if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
        raise BadRequest("A currency is its ISO 4217 code, such as EUR.", param="currency")
    if not 1 <= terms.months <= _MOST_MONTHS:
        raise BadRequest(f"A term has 1 to {_MOST_MONTHS} months.", param="months")
    for name in ("minimum_nano", "fee_nano"):
        if not 0 <= getattr(terms, name) <= MOST_NANO:
            raise BadRequest("An amount is not negative, and at most a thousand million.", param=name)
    if not 0 <= terms.overage_ppm <= 100 * PPM:
        raise BadRequest("Overage costs between nothing and a hundred times the price.", param="overage_ppm")
    if terms.renewal is not None and not 1 <= terms.renewal.months <= _MOST_MONTHS:
        raise BadRequest(f"A renewal has 1 to {_MOST_MONTHS} months.", param="renewal")
    if len({each.id for each in terms.commitments}) < len(terms.commitments):
        raise BadRequest("Two commitments have one name.", param="commitments")
    for commitment in terms.commitments:
        _check_commitment(terms, commitment)


def check_amendment(before: ContractTerms, after: ContractTerms, effective_from: datetime) -> None:
    """Raise a typed error if `after` cannot follow `before` from then on.

    What was due stays: neither currency nor beginning changes, nor an instalment from before, and nothing that was
    committed is taken away before its time; such things are corrected by credit notes.
    """
    for name in ("currency", "start", "time_zone"):
        if getattr(before, name) != getattr(after, name):
            raise BadRequest("Currency, beginning and time zone are for the whole contract.", param=name)
    if not before.start <= effective_from <= before.end:
        raise BadRequest("An amendment takes effect within the term.", param="effective_from")
    if after.end < effective_from:
        raise BadRequest("A term cannot end before the amendment that says so.", param="months")
    if _due(before, effective_from) != _due(after, effective_from):
        raise BadRequest("An instalment that is due before cannot be changed.", param="commitments")
    if before.renewal is not None and after.renewal is None:
        last = before.end - timedelta(days=before.renewal.notice_days)
        if effective_from > last:
            raise Conflict(f"Notice was to be given by {last.isoformat()}.", code="notice_too_late", param="renewal")


def renewed(terms: ContractTerms) -> ContractTerms:
    """The terms with one renewal more: commitments that end with the term are made again, all amounts with uplift."""
    renewal, end = terms.renewal, terms.end
    if renewal is None:
        return terms
    again = [_again(each, terms, renewal.months, renewal.uplift_ppm) for each in terms.commitments if each.end == end]
    return replace(
        terms,
        months=terms.months + renewal.months,
        commitments=(*terms.commitments, *again),
        minimum_nano=_scaled(terms.minimum_nano, renewal.uplift_ppm),
        fee_nano=_scaled(terms.fee_nano, renewal.uplift_ppm),
    )


def _again(commitment: Commitment, terms: ContractTerms, months: int, uplift_ppm: int) -> Commitment:
    # Each instalment is the difference of two scaled sums, so that all of them are the scaled whole.
    shifted: list[Instalment] = []
    done = 0
    for each in commitment.instalments:
        due_at = months_after(each.due_at, terms.time_zone, months)
        nano = _scaled(done + each.nano, uplift_ppm) - _scaled(done, uplift_ppm)
        shifted.append(Instalment(due_at=due_at, nano=nano))
        done += each.nano
    return replace(
        commitment,
        id=f"{commitment.id}+{terms.months}",
        nano=_scaled(commitment.nano, uplift_ppm),
        start=terms.end,
        end=months_after(terms.start, terms.time_zone, terms.months + months),
        instalments=tuple(shifted),
    )


def _scaled(nano: int, ppm: int) -> int:
    return round(Fraction(nano * ppm, PPM))


def _due(terms: ContractTerms, until: datetime) -> set[tuple[str, datetime, int]]:
    return {
        (commitment.id, each.due_at, each.nano)
        for commitment in terms.commitments
        for each in commitment.instalments
        if each.due_at < until
    }


def _check_commitment(terms: ContractTerms, commitment: Commitment) -> None:
    if not 0 < commitment.nano <= MOST_NANO:
        raise BadRequest("A commitment is more than nothing, and at most a thousand million.", param="commitments")
    if not terms.start <= commitment.start < commitment.end <= terms.end:
        raise BadRequest("A commitment lies within the term.", param="commitments")
    if any(each.nano <= 0 for each in commitment.instalments):
        raise BadRequest("An instalment is more than nothing.", param="commitments")
    if any(not terms.start <= each.due_at < terms.end for each in commitment.instalments):
        raise BadRequest("An instalment is due within the term.", param="commitments")
    if len({each.due_at for each in commitment.instalments}) < len(commitment.instalments):
        raise BadRequest("Two instalments of a commitment are due at once.", param="commitments")
    parts = sum(each.nano for each in commitment.instalments)
    if parts != commitment.nano and (commitment.kind == "prepaid" or commitment.instalments):
        raise BadRequest("The instalments of a commitment add up to it.", param="commitments")
