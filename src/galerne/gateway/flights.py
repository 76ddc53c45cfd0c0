"""Streams under way, in a file mapped into memory: counted before each chunk leaves, so that kill -9 loses no token.

What a process writes into a mapped file survives its death, for the kernel keeps the pages; only the machine's own
death loses them, and for that the database hears of long streams every second. A slot is its length, its counts and the
flight as JSON; the length is written last and cleared first, so that a slot is either whole or free.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from galerne.gateway.progress import Progress
from galerne.gateway.settled import Flight
from galerne.gateway.wire.answer import TokenCount
from galerne.kernel import get_logger, invariant

__all__ = ["FlightFile", "FlightSlot", "abandoned_flights"]

_SLOT = 2048
_FIRST_SLOTS = 256
_HEAD = struct.Struct("QQQQQ")  # the record's length; input, cached and output tokens, whether they are estimates
_WORD = 8
_ROOM = _SLOT - _HEAD.size
_LONG_S = 1.0
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Flight).decode


class FlightSlot:
    """One stream's place in the file."""

    __slots__ = ("_at", "_file", "_landed", "_reported", "began_s", "counts", "flight", "number")

    def __init__(self, file: "FlightFile", number: int, flight: Flight, began_s: float) -> None:
        self._file = file
        self._at = number * _SLOT // _WORD
        self._reported: tuple[int, int, int] | None = None
        self._landed = False
        self.number = number
        self.flight = flight
        self.began_s = began_s
        self.counts = (0, 0, 0)

    def deliver(self, count: TokenCount) -> None:
        """Note what will have been delivered once the next chunk is out; to be called before it leaves."""
        self.counts = (count.input_tokens, count.cached_tokens, count.output_tokens)
        words, at = self._file.words, self._at
        words[at + 1], words[at + 2], words[at + 3] = self.counts
        words[at + 4] = count.estimated

    def land(self) -> None:
        """All is delivered, and is about to be settled: no progress may be written after that."""
        self._landed = True

    def end(self) -> None:
        """The stream is settled."""
        self._file.end(self)

    def progress(self, holder: str) -> Progress | None:
        """What has been delivered since this was last asked; None if nothing."""
        if self._landed:
            return None
        before = self._reported
        if before is None:
            self._reported = self.counts
            return Progress(self.flight.id, holder, _encode(self.flight).decode(), self.counts)
        if self.counts == before:
            return None
        self._reported = self.counts
        added = (self.counts[0] - before[0], self.counts[1] - before[1], self.counts[2] - before[2])
        return Progress(self.flight.id, holder, None, added)

    def untold(self) -> None:
        """What `progress` said last may not have been written: next time it says everything."""
        self._reported = None


class FlightFile:
    """The file of one running process, locked by it; it grows with the number of streams at once."""

    def __init__(self, folder: Path, holder: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"flights-{holder}.bin"
        part = self.path.with_suffix(".part")  # a process that starts beside us must not find the file unlocked
        self._descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        _make_room(self._descriptor, _FIRST_SLOTS * _SLOT)
        part.replace(self.path)
        self.memory = mmap.mmap(self._descriptor, _FIRST_SLOTS * _SLOT)
        # A word is stored by one instruction, so that no kill leaves half of it; `pack_into` would clear it first.
        self.words = memoryview(self.memory).cast("Q")
        self._free = list(range(_FIRST_SLOTS - 1, -1, -1))
        self._flying: dict[int, FlightSlot] = {}
        self._slots = _FIRST_SLOTS

    def begin(self, flight: Flight, now_s: float) -> FlightSlot:
        """A slot for a stream that is about to begin."""
        record = _encode(flight)
        if len(record) > _ROOM:
            # Of a request under very many limits the leases are left out: recovered, it counts towards none of them.
            record = _encode(msgspec.structs.replace(flight, leases={}))
        invariant(len(record) <= _ROOM, "a flight's record fits its slot")
        if not self._free:
            self._grow()
        number = self._free.pop()
        slot = self._flying[number] = FlightSlot(self, number, flight, now_s)
        slot.deliver(TokenCount(0, 0, 0))
        at = number * _SLOT + _HEAD.size
        self.memory[at : at + len(record)] = record
        self.words[number * _SLOT // _WORD] = len(record)
        return slot

    def end(self, slot: FlightSlot) -> None:
        """Free a slot; twice is once."""
        if self._flying.pop(slot.number, None) is slot:
            self.words[slot.number * _SLOT // _WORD] = 0
            self._free.append(slot.number)

    def long_flights(self, now_s: float) -> Iterator[FlightSlot]:
        """The streams that have lasted for more than a second."""
        return (slot for slot in list(self._flying.values()) if now_s - slot.began_s >= _LONG_S)

    def close(self) -> None:
        """Remove the file if nothing in it is left to settle; else it stays for the next start. Twice is once."""
        if self.memory.closed:
            return
        if not self._flying:
            with suppress(OSError):
                self.path.unlink()
        self.words.release()
        self.memory.close()
        os.close(self._descriptor)

    def _grow(self) -> None:
        more = self._slots
        _make_room(self._descriptor, (self._slots + more) * _SLOT)
        self.words.release()
        self.memory.resize((self._slots + more) * _SLOT)
        self.words = memoryview(self.memory).cast("Q")
        self._free.extend(range(self._slots + more - 1, self._slots - 1, -1))
        self._slots += more


def _make_room(descriptor: int, size: int) -> None:
    # Blocks, not a hole: to write into a hole's memory when the disk is full is death by SIGBUS; this is an `OSError`.
    os.posix_fallocate(descriptor, 0, size)


def abandoned_flights(folder: Path) -> list[tuple[Path, list[tuple[Flight, TokenCount]]]]:
    """The files of processes that are dead, and what was delivered of each stream in them; files of the living stay."""
    found: list[tuple[Path, list[tuple[Flight, TokenCount]]]] = []
    for path in sorted(folder.glob("flights-*.bin")):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError as error:
            get_logger("gateway").error("flights_unreadable", file=str(path), error=type(error).__name__)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append((path, list(_flights(path))))
        except BlockingIOError:
            pass  # its process lives
        finally:
            os.close(descriptor)
    return found


def _flights(path: Path) -> Iterator[tuple[Flight, TokenCount]]:
    content = path.read_bytes()
    for at in range(0, len(content) - _SLOT + 1, _SLOT):
        length, fresh, cached, output, estimated = _HEAD.unpack_from(content, at)
        if not 0 < length <= _ROOM:
            continue
        try:
            flight = _decode(content[at + _HEAD.size : at + _HEAD.size + length])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            get_logger("gateway").error(
                "flight_unreadable", file=str(path), slot=at // _SLOT, error=type(error).__name__
            )
            continue
        yield flight, TokenCount(fresh, cached, output, bool(estimated))
