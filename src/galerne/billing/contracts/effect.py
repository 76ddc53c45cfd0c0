"""What an amendment would cost before anybody signs it: the same walk twice, month by month. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from galerne.billing.charges import Charge, Period
from galerne.billing.contracts.drawdown import Version, contract_charges
from galerne.billing.contracts.terms import ContractTerms, check_amendment, check_terms


@dataclass(frozen=True, slots=True)
class MonthEffect:
    """What becomes due in one month, without the amendment and with it."""

    period: Period
    before_nano: int
    after_nano: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What an amendment changes, by month; months in which nothing becomes due are left out."""

    currency: str
    months: list[MonthEffect]

    @property
    def difference_nano(self) -> int:
        """What the amendment costs in all; negative if it saves."""
        return sum(month.after_nano - month.before_nano for month in self.months)


def effect_of(
    versions: Sequence[Version],
    terms: ContractTerms,
    effective_from: datetime,
    usage: Mapping[Period, int],
    forecast_nano: int = 0,
) -> Effect:
    """What `terms` from `effective_from` on change, for the usage there was and `forecast_nano` in each month to come.

    A month to come is one without usage in `usage`. Raises what `check_terms` and `check_amendment` raise.
    """
    check_terms(terms)
    check_amendment(versions[-1].terms, terms, effective_from)
    new = [*versions, Version(effective_from, terms)]
    periods = max((each.terms for each in new), key=lambda each: each.months).periods()
    expected = {period: usage.get(period, forecast_nano) for period in periods}
    before, after = (contract_charges("", each, expected) for each in (versions, new))
    months = [MonthEffect(period, _due(before, period), _due(after, period)) for period in periods]
    return Effect(terms.currency, [month for month in months if month.before_nano or month.after_nano])


def _due(charges: Sequence[Charge], period: Period) -> int:
    return sum(charge.amount_nano for charge in charges if period.holds(charge.due_at))
