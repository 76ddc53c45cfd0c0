"""A process that delivers as fast as it can to streams of its own, and says so first: for tests that kill it."""

import os
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from galerne.gateway.flights import FlightFile
from galerne.gateway.settled import Flight
from galerne.gateway.wire.answer import TokenCount
from tests.flights import flight_of

STREAMS = 3
STRIDE = 0x01_0101_0101  # so that each delivery changes many bytes: half of a number would show
ANNOUNCED_BYTES = 8
_CHURN = 40


def flight(request_id: str, *, leases: int = 0) -> Flight:
    """A stream under way that pays nothing."""
    leased = {f"{number:032x}:{number:032x}:{number:032x}:1700000000000": "tokens" for number in range(leases)}
    begun = datetime(2026, 11, 23, tzinfo=UTC)
    return flight_of(request_id, "org", begun, model="m", zone="on-prem", streamed=True, leases=leased)


def _fly(folder: Path, holder: str, announce: int) -> None:
    file = FlightFile(folder, holder)
    slots = [file.begin(flight(f"stream-{number}"), 0.0) for number in range(STREAMS)]
    for number in count(1):
        os.write(announce, number.to_bytes(ANNOUNCED_BYTES, "little"))
        slots[number % STREAMS].deliver(TokenCount(11, 4, number * STRIDE))
        if number % _CHURN == 0:
            file.begin(flight("passing", leases=number % 7), 0.0).end()


def main() -> None:
    """For each line read, the name of a holder: a new process that flies; its id, and a line once it is gone."""
    folder, announce = Path(sys.argv[1]), int(sys.argv[2])
    for holder in sys.stdin:
        pid = os.fork()
        if not pid:
            _fly(folder, holder.strip(), announce)
        os.write(sys.stdout.fileno(), f"{pid}\n".encode())
        os.waitpid(pid, 0)
        os.write(sys.stdout.fileno(), b"gone\n")


if __name__ == "__main__":
    main()
