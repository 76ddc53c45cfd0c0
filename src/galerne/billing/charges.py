"""Charges: what a subscription or a contract asks for, each with the arithmetic that made it. Pure.

They become an invoice's lines; their ids are the same however often they are asked for, so that none is billed twice.
"""

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Literal

ChargeKind = Literal["recurring", "proration", "seat", "commitment", "usage", "overage", "true_up", "minimum"]


@dataclass(frozen=True, slots=True)
class Period:
    """A span of time, `start` inclusive and `end` exclusive, aware."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> int:
        """Its length in whole seconds."""
        return whole_seconds(self.start, self.end)

    def holds(self, at: datetime) -> bool:
        """Whether `at` lies in it."""
        return self.start <= at < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """An amount to bill, negative for a credit, in nano-units of `currency`.

    `amount_nano` is `quantity` x `unit_price_nano` x `seconds` / `of_seconds`, rounded so that the charges of one
    billing period add up to the rounded whole: it never differs by as much as two nano-units. `period` is what is paid
    for, `due_at` when it became due; an invoice takes the charges whose `due_at` lies in its own period.
    """

    id: str
    kind: ChargeKind
    description: str
    currency: str
    period: Period
    quantity: int
    unit_price_nano: int
    amount_nano: int
    due_at: datetime
    tax_inclusive: bool = False
    seconds: int = 1
    of_seconds: int = 1


def whole_seconds(start: datetime, end: datetime) -> int:
    """Seconds from one time to another, the begun one left out."""
    span = end - start
    return span.days * 86_400 + span.seconds


def rounded(exact: Fraction) -> int:
    """The nearest integer, half to even: the one rounding of a billing line."""
    return round(exact)
