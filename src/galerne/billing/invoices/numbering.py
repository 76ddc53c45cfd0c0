"""Invoice numbers: one after the other in a series of an issuer and a year, given only to what becomes final.

The series' row stays locked until the transaction ends, so that a number that was not used after all is used next.
"""

from datetime import date
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.documents.document import Kind
from galerne.billing.invoices.invoice import Issuer

_DIGITS = 6
_OPEN = text(
    "INSERT INTO invoice_series (issuer_id, series, last) VALUES (:issuer, :series, 0)"
    " ON CONFLICT (issuer_id, series) DO NOTHING"
)
_NEXT = text("UPDATE invoice_series SET last = last + 1 WHERE issuer_id = :issuer AND series = :series RETURNING last")


class Number(NamedTuple):
    """A number, and its place in its series."""

    series: str
    sequence: int

    @property
    def text(self) -> str:
        """As the invoice bears it: `FR-2026-000001`."""
        return f"{self.series}-{self.sequence:0{_DIGITS}d}"


def series_of(issuer: Issuer, kind: Kind, issued_on: date) -> str:
    """The series for what is issued on that day: `FR-2026`, for credit notes `FR-C-2026`."""
    return f"{series_prefix(issuer.prefix, kind)}-{issued_on.year:04d}"


def series_prefix(prefix: str, kind: Kind) -> str:
    """With what the numbers of an issuer's documents of that kind begin: `FR`, for credit notes `FR-C`."""
    return f"{prefix}-C" if kind == "credit_note" else prefix


async def next_number(session: AsyncSession, issuer: Issuer, kind: Kind, issued_on: date) -> Number:
    """The next number; who else wants one waits until this transaction ends."""
    values = {"issuer": issuer.id, "series": series_of(issuer, kind, issued_on)}
    await session.execute(_OPEN, values)
    return Number(values["series"], int((await session.execute(_NEXT, values)).scalar_one()))
