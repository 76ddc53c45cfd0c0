"""What becomes of a gateway process that died: its streams are settled as delivered, then its holds and leases freed.

A process that starts again finds the exact counts in its predecessor's file. For one whose machine is gone, any other
process does it from the database, which is about a second behind: it never guesses more than was recorded.
"""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from galerne.gateway.commit import settled_script
from galerne.gateway.flights import abandoned_flights
from galerne.gateway.progress import died_script, forget_script, left_script, silent_script
from galerne.gateway.settled import Flight, Settled, recovered
from galerne.gateway.unsettled import UnsettledFile
from galerne.gateway.wire.answer import TokenCount
from galerne.governance import SYSTEM
from galerne.journal import Entry, append_script
from galerne.kernel import Script, get_logger
from galerne.ledger import OpenHold, expired_script, release_script, renew_script
from galerne.metering import reclaim_script, recorded_script

__all__ = ["recover_script", "recovered_flights"]

_MOST = 100
_decode = msgspec.json.Decoder(Flight).decode


def recovered_flights(folder: Path, at: datetime) -> list[tuple[Settled, UnsettledFile]]:
    """The ends of the streams of dead processes whose files lie in `folder`; each file goes once all are written."""
    found: list[tuple[Settled, UnsettledFile]] = []
    for path, flights in abandoned_flights(folder):
        if not flights:
            with suppress(OSError):
                path.unlink()
            continue
        get_logger("gateway").warning("flights_recovered", file=str(path), requests=len(flights))
        file = UnsettledFile(path, len(flights))
        found += [(recovered(flight, count, at), file) for flight, count in flights]
    return found


def recover_script(ours: str, at: datetime, silent_before_ms: int) -> Script[int]:
    """Settle what processes that are silent, or whose holds have expired, had delivered, and free what they held.

    `ours` is the process that does it, and is left alone. Returns how many holds and requests were dealt with.
    """
    now_ms = int(at.timestamp() * 1000)
    silent = [each for each in (yield from silent_script(silent_before_ms, _MOST)) if each != ours]
    holds = [each for each in (yield from expired_script(now_ms, _MOST)) if each.holder != ours]
    left = yield from left_script({*silent, *(hold.holder for hold in holds)})
    recorded = yield from recorded_script([row[0] for row in left])
    ends = [end for row in left if row[0] not in recorded and (end := _end(row, at)) is not None]
    entries = yield from settled_script((yield from _payable(ends)))
    yield from forget_script([row[0] for row in left])
    if holds:
        returned = yield from release_script([hold.id for hold in holds], at)
        entries += [_reclaimed(hold, returned.get(hold.id, 0), at) for hold in holds]
    yield from reclaim_script(now_ms, _MOST)
    yield from died_script(silent)
    if entries:
        yield from append_script(entries)
    return len(entries)


def _payable(ends: list[Settled]) -> Script[list[Settled]]:
    """The ends, unpaid where the hold was given back already: one of them must not stop the recovery of all others."""
    held = {end.settlement.hold_id for end in ends if end.settlement is not None}
    still_open = (yield from renew_script(held, 0)) if held else frozenset[str]()
    return [end if _is_held(end, still_open) else end.unpaid() for end in ends]


def _is_held(end: Settled, still_open: frozenset[str]) -> bool:
    return end.settlement is None or end.settlement.hold_id in still_open


def _end(row: tuple[str, str, int, int, int], at: datetime) -> Settled | None:
    request_id, record, *counts = row
    try:
        flight = _decode(record)
    except msgspec.MsgspecError as error:
        get_logger("gateway").error("progress_unreadable", request_id=request_id, error=type(error).__name__)
        return None
    return recovered(flight, TokenCount(counts[0], counts[1], counts[2]), at)


def _reclaimed(hold: OpenHold, left_nano: int, at: datetime) -> Entry:
    detail = {"holder": hold.holder, "account": hold.debit_account_id, "left_nano": left_nano}
    return Entry(
        action="hold.reclaimed", actor=SYSTEM, resource=f"hold:{hold.id}", outcome="done", at=at, detail=detail
    )
