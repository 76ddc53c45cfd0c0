"""What the database could not take, kept in files of JSON lines until it can."""

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from galerne.gateway.settled import Settled
from galerne.journal import Entry
from galerne.journal import Outcome as JournalOutcome
from galerne.kernel import GalerneError, get_logger
from galerne.ledger import Posting, Settlement
from galerne.metering import UsageEvent

__all__ = ["UnsettledFile", "load_unsettled", "save_unsettled"]


@dataclass(frozen=True, slots=True)
class _Actor:
    kind: str
    id: str
    organisation_id: str
    workspace_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    action: str
    actor: _Actor
    resource: str
    outcome: JournalOutcome
    at: datetime
    request_id: str | None
    detail: dict[str, str | int | bool | None]


@dataclass(frozen=True, slots=True)
class _Line:
    event: UsageEvent
    entry: _Entry
    settlement: Settlement | None = None
    spent: dict[str, int] = field(default_factory=dict[str, int])
    posting: Posting | None = None
    cost_nano: int = 0


_decode = msgspec.json.Decoder(_Line).decode


@dataclass(slots=True, eq=False)
class UnsettledFile:
    """A file whose requests are not in the database yet; it goes once each of them is."""

    path: Path
    left: int = 0

    def settled(self) -> None:
        """One more of its lines has been committed."""
        self.left -= 1
        if self.left == 0:
            with suppress(OSError):  # what stays will be found settled next time
                self.path.unlink(missing_ok=True)


def save_unsettled(folder: Path, ones: Sequence[Settled], at: datetime) -> UnsettledFile:
    """The new file `unsettled-<time>.jsonl` that holds `ones` in order, safely on disk; `OSError` when it cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"unsettled-{at:%Y%m%dT%H%M%S%f}-{ones[0].event.id[-12:]}.jsonl"
    part = path.with_suffix(".part")
    with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # so that a process that starts beside us knows that somebody writes it
        file.writelines(_line(one) for one in ones)
        file.flush()
        os.fsync(file.fileno())
        part.replace(path)
    _keep_names(folder)
    return UnsettledFile(path, len(ones))


def _keep_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # a file's name is in its folder, which is written apart
    finally:
        os.close(descriptor)


def load_unsettled(folder: Path) -> list[tuple[Settled, UnsettledFile]]:
    """What earlier runs left, oldest first; a line that cannot be read is logged, and its file stays for a person."""
    _remove_abandoned(folder)
    found: list[tuple[Settled, UnsettledFile]] = []
    for path in sorted(folder.glob("unsettled-*.jsonl")):
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            get_logger("gateway").error("unsettled_unreadable", file=str(path), error=type(error).__name__)
            continue
        file = UnsettledFile(path, len(lines))
        for number, line in enumerate(lines, 1):
            try:
                found.append((_settled(line), file))
            except (msgspec.MsgspecError, UnicodeDecodeError, GalerneError, ValueError, RuntimeError) as error:
                get_logger("gateway").error(
                    "unsettled_unreadable", file=str(path), line=number, error=type(error).__name__
                )
        get_logger("gateway").warning("unsettled_loaded", file=str(path), requests=len(lines))
    return found


def _remove_abandoned(folder: Path) -> None:
    """Remove what a process was writing when it died: nobody was told that it is safe."""
    for part in folder.glob("unsettled-*.part"):
        with suppress(OSError), part.open("rb") as file:  # one that is locked is still being written
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


def _line(one: Settled) -> bytes:
    entry, actor = one.entry, one.entry.actor
    kept = _Entry(
        action=entry.action,
        actor=_Actor(str(actor.kind), actor.id, actor.organisation_id, actor.workspace_id),
        resource=entry.resource,
        outcome=entry.outcome,
        at=entry.at,
        request_id=entry.request_id,
        detail=dict(entry.detail),
    )
    return (
        msgspec.json.encode(_Line(one.event, kept, one.settlement, dict(one.spent), one.posting, one.cost_nano)) + b"\n"
    )


def _settled(line: bytes) -> Settled:
    read = _decode(line)
    entry = read.entry
    return Settled(
        read.event,
        Entry(
            action=entry.action,
            actor=entry.actor,
            resource=entry.resource,
            outcome=entry.outcome,
            at=entry.at,
            request_id=entry.request_id,
            detail=entry.detail,
        ),
        read.settlement,
        read.spent,
        read.posting,
        read.cost_nano,
    )
