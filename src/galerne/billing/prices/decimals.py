"""Prices as people write them: decimals of a currency for 1,000,000 tokens, and what makes one acceptable. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from galerne.billing.prices.pricing import HIGHEST_NANO_PER_MILLION
from galerne.kernel import BadRequest

_NANO_DIGITS = 9
_CURRENCY = re.compile(r"[A-Z]{3}")
_PLAIN = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]{1,30})(?:\.(?P<part>[0-9]{1,30}))?", re.ASCII)


NOTICE = timedelta(seconds=10)
"""How long before it begins a price is written, at least, so that all who keep prices know it when it begins.

They read theirs again after `PRICES_STALENESS_S`; the rest is for the commit, and for clocks that differ.
"""

PRICES_STALENESS_S = 5.0
"""For how long whoever keeps prices, and what decides which of them count, trusts what it read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRates:
    """What a model's tokens shall cost, nano-units of `currency` for 1,000,000 tokens, from a time on.

    Without one, or with one nearer than `NOTICE`, from then on.
    """

    currency: str
    input_nano_per_million: int
    cached_nano_per_million: int
    output_nano_per_million: int
    effective_from: datetime | None = None


def nano_of(text: str, *, param: str) -> int:
    """The decimal that `text` writes, in nano-units.

    Raises `BadRequest` naming `param` for what is no decimal in plain digits, or finer than a nano-unit.
    """
    found = _PLAIN.fullmatch(text)
    if found is None:
        raise BadRequest(f"{param}: '{text[:40]}' is no price; write it in plain digits, such as 0.05.", param=param)
    part = (found["part"] or "").rstrip("0")
    if len(part) > _NANO_DIGITS:
        raise BadRequest(f"{param}: a price has at most {_NANO_DIGITS} digits after the point.", param=param)
    nano = int(found["whole"] + part.ljust(_NANO_DIGITS, "0"))
    return -nano if found["sign"] else nano


def decimal_of(nano_per_million: int) -> str:
    """A price as people write it, without needless zeros: `0.5` for 500,000,000 nano-units."""
    whole, part = divmod(nano_per_million, 10**_NANO_DIGITS)
    return f"{whole}.{part:0{_NANO_DIGITS}d}".rstrip("0").rstrip(".")


def begin_of(asked: datetime | None, now: datetime) -> datetime:
    """When a price that is written at `now` begins: as asked, but not before everybody knows it (`NOTICE`)."""
    earliest = now + NOTICE
    return earliest if asked is None else max(asked, earliest)


def check_new_rates(new: NewRates, now: datetime) -> None:
    """Raise `BadRequest` naming the field if `new` cannot become rates at `now`."""
    check_currency(new.currency)
    for param in ("input", "cached", "output"):
        check_price(param, getattr(new, f"{param}_nano_per_million"))
    if new.effective_from is not None and new.effective_from < now:
        raise BadRequest(
            "A price cannot begin in the past: what was used has been priced. Leave it out for soon.",
            param="effective_from",
        )


def check_currency(currency: str) -> None:
    """Raise `BadRequest` if that is no code of three capitals (ISO 4217)."""
    if not _CURRENCY.fullmatch(currency):
        raise BadRequest(
            f"'{currency[:40]}' is no currency; give a code of three capitals, such as EUR.", param="currency"
        )


def check_price(param: str, nano: int) -> None:
    """Raise `BadRequest` naming `param` if nothing can cost that much, or less than nothing."""
    if nano < 0:
        raise BadRequest(f"{param}: a price cannot be negative.", param=param)
    if nano > HIGHEST_NANO_PER_MILLION:
        most = decimal_of(HIGHEST_NANO_PER_MILLION)
        raise BadRequest(f"{param}: a price for 1,000,000 tokens is at most {most}.", param=param)
