"""Asks a process of its own, bounded in time, whether an invoice's XML obeys the schema and EN 16931's rules."""

import base64
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self, cast

from galerne.kernel import Unavailable, Unprocessable

WORKER = (sys.executable, "-m", "galerne.billing.documents.validation_worker")
"""How the process is started that validates."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that the XML breaks: its id (BR-CO-10, or XSD), where, in whose words; `fatal` unless a warning."""

    rule: str
    location: str
    text: str
    severity: str

    @property
    def is_fatal(self) -> bool:
        """Whether the document is invalid for it."""
        return self.severity == "fatal"


def check_once(xml: bytes) -> tuple[Finding, ...]:
    """What `Validator.check` says, of a process that is started for this document alone; it raises the same."""
    with Validator() as validator:
        return validator.check(xml)


class Validator:
    """Validates one document at a time; its process starts with the first, and again after it died or hung.

    Safe to call from several threads: they wait for each other. Close it, or use it as a context manager.
    """

    def __init__(self, limit_s: float = 30.0, command: Sequence[str] = WORKER) -> None:
        self._limit_s = limit_s
        self._command = command
        self._lock = threading.Lock()
        self._asked = 0
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, xml: bytes) -> tuple[Finding, ...]:
        """What is wrong with this XML, nothing if all is well.

        Raises `Unprocessable` for what is no XML, `Unavailable` when the process took longer than its limit or died
        on this document twice.
        """
        with self._lock:
            try:
                answer = self._ask(xml)
            except EOFError:
                answer = self._ask_again(xml)
        if "refused" in answer:
            raise Unprocessable(answer["refused"], code="invalid_xml")
        return tuple(Finding(**row) for row in answer["findings"])

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask_again(self, xml: bytes) -> Any:
        try:
            return self._ask(xml)
        except EOFError:
            raise Unavailable(
                "The process that validates invoices died on this document, twice", code="validator_crashed"
            ) from None

    def _ask(self, xml: bytes) -> Any:
        """The answer to this very question: after anything else than that, the process is ended."""
        process = self._running()
        alarm = threading.Timer(self._limit_s, process.kill)
        alarm.start()
        until = time.monotonic() + self._limit_s
        self._asked += 1
        try:
            return self._exchange(process, xml)
        except (BrokenPipeError, EOFError, ValueError):
            self._end()
            if time.monotonic() < until:
                raise EOFError from None
            raise Unavailable(
                f"The process that validates invoices took longer than {self._limit_s:g} s and was ended",
                code="validation_timed_out",
            ) from None
        except BaseException:
            self._end()
            raise
        finally:
            alarm.cancel()

    def _exchange(self, process: subprocess.Popen[bytes], xml: bytes) -> Any:
        to_worker, from_worker = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        to_worker.write(f"{self._asked} ".encode() + base64.b64encode(xml) + b"\n")
        to_worker.flush()
        answer = json.loads(from_worker.readline() or b"?")
        if answer["id"] != self._asked:
            raise EOFError
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):  # closing writes what nobody reads any more
                    if pipe is not None:
                        pipe.close()
