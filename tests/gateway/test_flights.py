"""Streams under way survive their process: as exact as what it delivered, settled once, whoever does it."""

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from galerne.gateway.flights import FlightFile, abandoned_flights
from galerne.gateway.wire.answer import TokenCount
from galerne.kernel import InvariantViolated
from tests.gateway.flying import ANNOUNCED_BYTES, STREAMS, STRIDE, flight

ROOT = Path(__file__).parents[2]
PIPE_BYTES = 1 << 20


def found(folder: Path) -> dict[str, TokenCount]:
    return {one.id: count for _, flights in abandoned_flights(folder) for one, count in flights}


def abandon(file: FlightFile) -> None:
    fcntl.flock(file._descriptor, fcntl.LOCK_UN)  # as the death of its process does


def test_what_was_delivered_is_read_back_from_the_file_of_the_dead_and_not_of_the_living(tmp_path: Path) -> None:
    file = FlightFile(tmp_path, "one")
    first, second = file.begin(flight("a"), 0.0), file.begin(flight("b"), 0.0)
    first.deliver(TokenCount(11, 4, 1))
    first.deliver(TokenCount(11, 4, 2**33, True))
    assert found(tmp_path) == {}, "it lives"
    abandon(file)
    assert found(tmp_path) == {"a": TokenCount(11, 4, 2**33, True), "b": TokenCount(0, 0, 0)}
    assert second.flight == flight("b")
    ((_, flights),) = abandoned_flights(tmp_path)
    assert flights[0][0] == flight("a")


def test_a_stream_that_ended_is_not_read_back_and_its_place_is_used_again_from_nothing(tmp_path: Path) -> None:
    file = FlightFile(tmp_path, "one")
    first = file.begin(flight("a"), 0.0)
    first.deliver(TokenCount(11, 4, 9))
    first.end()
    first.end()
    second, third = file.begin(flight("b"), 0.0), file.begin(flight("c"), 0.0)
    assert second.number == first.number != third.number
    first.end()
    abandon(file)
    assert found(tmp_path) == {"b": TokenCount(0, 0, 0), "c": TokenCount(0, 0, 0)}


def test_the_file_grows_with_the_streams_and_forgets_none(tmp_path: Path) -> None:
    file = FlightFile(tmp_path, "one")
    slots = [file.begin(flight(f"{number}"), 0.0) for number in range(700)]
    for number, slot in enumerate(slots):
        slot.deliver(TokenCount(1, 0, number))
    for slot in slots[::2]:
        slot.end()
    abandon(file)
    assert found(tmp_path) == {f"{number}": TokenCount(1, 0, number) for number in range(1, 700, 2)}


def test_closing_removes_the_file_unless_something_in_it_is_left_to_settle(tmp_path: Path) -> None:
    file = FlightFile(tmp_path, "one")
    file.begin(flight("a"), 0.0).end()
    file.close()
    file.close()
    assert list(tmp_path.iterdir()) == []
    file = FlightFile(tmp_path, "two")
    file.begin(flight("b"), 0.0)
    file.close()
    assert found(tmp_path) == {"b": TokenCount(0, 0, 0)}


def test_a_full_disk_is_met_when_the_file_is_made_or_grows_not_when_a_stream_writes_to_it(tmp_path: Path) -> None:
    file = FlightFile(tmp_path, "one")
    for number in range(300):
        file.begin(flight(str(number)), 0.0)
        written = file.path.stat()
        assert written.st_blocks * 512 >= written.st_size
    file.close()


def test_only_its_owner_may_read_a_file(tmp_path: Path) -> None:
    file = FlightFile(tmp_path, "one")
    assert file.path.stat().st_mode & 0o077 == 0
    file.close()


def test_under_more_limits_than_fit_a_stream_flies_without_its_leases_and_what_never_fits_takes_no_place(
    tmp_path: Path,
) -> None:
    file = FlightFile(tmp_path, "one")
    file.begin(flight("a", leases=100), 0.0).deliver(TokenCount(1, 0, 5))
    for _ in range(300):
        with pytest.raises(InvariantViolated):
            file.begin(flight("x" * 3000), 0.0)
    assert file.begin(flight("b"), 0.0).number == 1
    abandon(file)
    ((_, flights),) = abandoned_flights(tmp_path)
    assert flights == [(flight("a"), TokenCount(1, 0, 5)), (flight("b"), TokenCount(0, 0, 0))]


def test_a_file_cannot_be_found_before_its_process_has_locked_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, seen = fcntl.flock, list[object]()

    def look(descriptor: int, operation: int) -> None:
        seen.append(list(tmp_path.glob("flights-*.bin")))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", look)
    FlightFile(tmp_path, "one").close()
    assert seen == [[]]


def test_a_place_that_cannot_be_read_costs_no_other_and_is_told(
    tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    file = FlightFile(tmp_path, "one")
    spoilt, whole = file.begin(flight("a"), 0.0), file.begin(flight("b"), 0.0)
    file.memory[60:70] = b"\xff" * 10
    assert (spoilt.number, whole.number) == (0, 1)
    abandon(file)
    (tmp_path / "flights-empty.bin").touch()
    (tmp_path / "flights-folder.bin").mkdir()
    assert list(found(tmp_path)) == ["b"]
    assert {line["event"] for line in logs} == {"flights_unreadable", "flight_unreadable"}


@contextmanager
def launcher(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    reading, announce = os.pipe()
    fcntl.fcntl(announce, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    command = [sys.executable, "-m", "tests.gateway.flying", str(folder), str(announce)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(announce,), cwd=ROOT
    )
    os.close(announce)
    os.set_blocking(reading, False)
    with process:
        yield process, reading
        assert process.stdin is not None
        process.stdin.close()
    os.close(reading)


def announced(reading: int) -> int:
    content = b""
    while True:
        try:
            content += os.read(reading, PIPE_BYTES)
        except BlockingIOError:
            assert len(content) % ANNOUNCED_BYTES == 0
            return int.from_bytes(content[-ANNOUNCED_BYTES:], "little")


def check_counts(counts: dict[str, TokenCount], last: int) -> None:
    counts.pop("passing", None)
    for stream in range(STREAMS if last else 0):
        number = last - (last - stream) % STREAMS
        count = counts.pop(f"stream-{stream}")
        delivered = {(11, 4, number * STRIDE)} if number > 0 else {(0, 0, 0)}
        if number == last:
            before = number - STREAMS
            delivered |= {(11, 4, before * STRIDE)} if before > 0 else {(0, 0, 0), (11, 0, 0), (11, 4, 0)}
        assert (count.input_tokens, count.cached_tokens, count.output_tokens) in delivered, (stream, last)
    assert counts.keys() <= {f"stream-{stream}" for stream in range(STREAMS)}


@pytest.mark.parametrize("seed", [random.randrange(10**6), 3], ids=["random", "3"])  # a failure shows the seed
def test_a_process_killed_in_mid_write_is_at_most_one_delivery_ahead_of_its_file(tmp_path: Path, seed: int) -> None:
    moments = random.Random(seed)
    last = 0
    with launcher(tmp_path) as (process, reading):
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(25):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            pid = int(process.stdout.readline())
            time.sleep(moments.uniform(0.0, 0.06))
            os.kill(pid, 9)
            assert process.stdout.readline() == "gone\n"
            announcement = announced(reading)
            last = max(last, announcement)
            files = abandoned_flights(tmp_path)
            for path, flights in files:
                check_counts({one.id: count for one, count in flights}, announcement)
                path.unlink()
    assert last > 100, "it never got far"
