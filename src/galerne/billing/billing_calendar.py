"""Billing periods: anniversaries of an anchor by the customer's own calendar, as instants in UTC. Pure.

An anchor on the 31st comes back on the 31st after it was on 28 February: every boundary is reckoned from the anchor,
none from the boundary before. A local time that a change of clocks leaves out is the instant that long after the gap's
beginning; one that comes twice is the first.
"""

from calendar import monthrange
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from galerne.billing.charges import Period
from galerne.kernel import BadRequest

Interval = Literal["month", "year"]

MONTHS: dict[Interval, int] = {"month": 1, "year": 12}
"""How many months an interval has."""


@lru_cache(1000)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name in the IANA database; `BadRequest` if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a name of nothing, of no file, of a folder
        raise BadRequest(
            f"'{name[:60]}' is no time zone; name one such as Europe/Paris or UTC.", param="time_zone"
        ) from None


def months_after(anchor: datetime, zone: str, months: int) -> datetime:
    """The instant `months` after `anchor` by the calendar of `zone`: same time, same day or the month's last."""
    if months == 0:
        return anchor
    local = anchor.astimezone(zone_of(zone))
    number = local.year * 12 + local.month - 1 + months
    year, month = divmod(number, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day, fold=0).astimezone(UTC)


def period_at(anchor: datetime, zone: str, interval: Interval, at: datetime) -> Period:
    """The billing period that holds `at`, which does not lie before `anchor`."""
    step, local, first = MONTHS[interval], at.astimezone(zone_of(zone)), anchor.astimezone(zone_of(zone))
    number = ((local.year - first.year) * 12 + local.month - first.month) // step - 1
    number = max(number, 0)
    while months_after(anchor, zone, (number + 1) * step) <= at:
        number += 1
    return Period(months_after(anchor, zone, number * step), months_after(anchor, zone, (number + 1) * step))
