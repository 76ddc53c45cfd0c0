"""One taking, and giving back alone: the gateway does both for many in one script."""

from collections.abc import Collection

from galerne.kernel import Script
from galerne.metering import Short, Take, Taken, takes_script


def take_script(take: Take, now_ms: int) -> Script[Taken | Short]:
    return (yield from takes_script([take], now_ms))[0]


def give_back_script(lease_ids: Collection[str]) -> Script[None]:
    yield from takes_script((), 0, lease_ids)
