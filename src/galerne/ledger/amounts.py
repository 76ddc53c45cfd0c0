"""Amounts as people write them, decimals of a currency with at most nine digits after the point; and the one rounding
of the house. Pure.
"""

import re

from galerne.kernel.errors import BadRequest, invariant
from galerne.ledger.chart import LARGEST_NANO

_DIGITS = 9
_PLAIN = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?", re.ASCII)


def amount_of(text: str, *, param: str = "amount") -> int:
    """The amount that `text` writes, in nano-units: more than nothing and no more than the ledger can hold.

    Raises `BadRequest` naming `param` for anything else.
    """
    found = _PLAIN.fullmatch(text)
    nano = 0 if found is None else int(found[1] + (found[2] or "").ljust(_DIGITS, "0"))
    if not 0 < nano <= LARGEST_NANO:
        raise BadRequest(
            f"'{text[:40]}' is no amount: write plain digits, at most {_DIGITS} after the point, such as 12.50; "
            f"more than 0 and at most {amount_text(LARGEST_NANO)}.",
            param=param,
        )
    return nano


def amount_text(nano: int) -> str:
    """Nano-units as a decimal, two digits after the point at least: `12.50`, `-0.000000001`."""
    whole, part = divmod(abs(nano), 10**_DIGITS)
    digits = f"{part:0{_DIGITS}d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}{whole}.{digits}"


def half_even(numerator: int, denominator: int) -> int:
    """The integer nearest to a quotient, the even one of two (IEEE 754's roundTiesToEven): the only rounding of money.

    Exact for any size and sign; the denominator is above 0.
    """
    invariant(denominator > 0, "a division of money by nothing")
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))
