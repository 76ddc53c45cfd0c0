"""Amounts on paper: minor units of a currency, two decimals at most, rounded half away from zero. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType

_NONE = ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF")
_THREE = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")

DECIMALS: Mapping[str, int] = MappingProxyType(
    {**dict[str, int].fromkeys(_NONE, 0), **dict[str, int].fromkeys(_THREE, 3)}
)
"""How many decimals a currency's minor unit has, where it isn't two (ISO 4217, list one)."""


def decimals_of(currency: str) -> int:
    """The number of decimals of this currency's minor unit: 0, 2 or 3."""
    return DECIMALS.get(currency, 2)


def to_minor(amount: Decimal | Fraction, currency: str) -> int:
    """This amount in minor units, rounded once, half away from zero.

    EN 16931 writes two decimals at most (BR-DEC-*), so a currency with three is rounded to its hundredths: its minor
    units are then multiples of ten.
    """
    written = min(2, decimals_of(currency))
    steps = abs(Fraction(amount)) * 10**written
    rounded = (2 * steps.numerator + steps.denominator) // (2 * steps.denominator)
    return (rounded if amount >= 0 else -rounded) * 10 ** (decimals_of(currency) - written)


def from_minor(minor: int, currency: str) -> Decimal:
    """The amount that so many minor units are, with as many decimals as the currency has."""
    return Decimal(minor).scaleb(-decimals_of(currency))
