"""From sums of rated usage and from charges to an invoice's lines, each of which can be recomputed. Pure."""

import re
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import cast

from galerne.billing.charges import Charge, Period
from galerne.billing.documents.amounts import decimals_of, from_minor, to_minor
from galerne.billing.documents.vat import Language
from galerne.billing.invoices.invoice import InvoiceLine, LineKind
from galerne.billing.invoices.wording import usage_name, words
from galerne.billing.rating.rows import month_start, next_month
from galerne.billing.rating.usage_lines import UsageLine
from galerne.kernel import BadRequest, invariant

_MONTH = re.compile("20[0-9]{2}-(0[1-9]|1[0-2])")
_NANO = 10**9
_DIGITS = 40


def usage_line(used: UsageLine, language: Language) -> InvoiceLine:
    """Rated usage at one price; `exact_nano` is what its requests cost and what steps of volume change of that."""
    span = span_of(used.month)
    return InvoiceLine(
        kind="usage",
        description=usage_name(used.line, language),
        quantity=used.quantity,
        price=decimal_text(Fraction(used.price_nano, _NANO)),
        base_quantity=used.per,
        exact_nano=used.requests_nano + used.volume_nano,
        starts_at=span.start,
        ends_at=span.end,
        line_key=used.line,
    )


def charge_line(charge: Charge, nano: int, description: str = "") -> InvoiceLine:
    """A charge, or what of it (`nano`) has not been billed yet, negative where it is given back."""
    whole = nano == charge.amount_nano and charge.quantity * charge.unit_price_nano == nano
    quantity = charge.quantity if whole and charge.quantity else -1 if nano < 0 else 1
    price = charge.unit_price_nano if whole and charge.quantity else abs(nano)
    return InvoiceLine(
        kind=cast(LineKind, "contract_usage" if charge.kind == "usage" else charge.kind),
        description=description or charge.description,
        quantity=quantity,
        price=decimal_text(Fraction(price, _NANO)),
        exact_nano=nano,
        starts_at=charge.period.start,
        ends_at=charge.period.end,
        tax_inclusive=charge.tax_inclusive,
    )


def settling_line(
    usage: Sequence[InvoiceLine], what: tuple[LineKind, str], exact_nano: int, span: Period, currency: str
) -> InvoiceLine | None:
    """The line that takes `exact_nano` off lines of usage, or adds it, so that together they are the rest rounded once.

    Without it, each line's own rounding would leave a cent to pay of what was paid. None where nothing is left to say.
    """
    kind, description = what
    rest_nano = sum(line.exact_nano for line in usage) + exact_nano
    billed = sum(line_minor(line, currency) for line in usage)
    minor = to_minor(Fraction(rest_nano, _NANO), currency) - billed
    if minor == 0 and exact_nano == 0:
        return None
    return InvoiceLine(
        kind=kind,
        description=description,
        quantity=-1 if minor < 0 else 1,
        price=str(from_minor(abs(minor), currency)),
        exact_nano=exact_nano,
        starts_at=span.start,
        ends_at=span.end,
    )


def line_minor(line: InvoiceLine, currency: str) -> int:
    """What a line comes to in minor units: quantity times price, rounded once, VAT as the line says."""
    return to_minor(line.quantity * Fraction(Decimal(line.price)) / line.base_quantity, currency)


def nano_of_minor(minor: int, currency: str) -> int:
    """Minor units of a currency in nano-units."""
    return int(minor * 10 ** (9 - decimals_of(currency)))


def decimal_text(value: Fraction) -> str:
    """A price as a decimal; exact, for prices are decimals and what multiplies them are parts per million."""
    with localcontext(prec=_DIGITS) as context:
        context.clear_flags()
        exact = Decimal(value.numerator) / Decimal(value.denominator)
    text = f"{exact.normalize():f}"
    invariant(Fraction(Decimal(text)) == value, f"the price {value} is no decimal")
    return text


def carried_line(nano: int, span: Period, language: Language, period: str) -> InvoiceLine:
    """What an earlier month left to give back."""
    return InvoiceLine(
        kind="carried",
        description=words(language, "carried", period=period),
        quantity=-1,
        price=decimal_text(Fraction(abs(nano), _NANO)),
        exact_nano=nano,
        starts_at=span.start,
        ends_at=span.end,
    )


def span_of(period: str) -> Period:
    """The month that `2026-11` names, UTC; `BadRequest` for anything else."""
    if not _MONTH.fullmatch(period):
        raise BadRequest(f"'{period[:20]}' is no month; write one as 2026-11.", param="period")
    return Period(month_start(period), month_start(next_month(period)))
