"""Reading and writing the file of a proof: one JSON object, a request on each line, so that memory stays flat. Pure.

Written so: the first line holds everything but the requests and ends with `"requests":[`, then comes one request on
each line, and `]}` ends it. Any other layout of the same JSON is read too, then as a whole.
"""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import msgspec

from galerne.billing.proof.findings import Finding, Findings
from galerne.billing.proof.form import FORMAT, VERSION, Head, Request

_OPEN = b'"requests":['
_CLOSE = b"]}"
_LONGEST_LINE = 256_000_000
_LARGEST_WHOLE = 256_000_000
_ENCODER = msgspec.json.Encoder()
_REQUEST = msgspec.json.Decoder(Request)
_HEAD = msgspec.json.Decoder(Head)


def head_line(head: Head) -> bytes:
    """The first line: everything but the requests."""
    encoded = _ENCODER.encode(head)
    return encoded[: -len(_CLOSE)] + b"\n"


def request_line(request: Request) -> bytes:
    """A request's line without what separates it from the next."""
    return _ENCODER.encode(request)


class ProofFile:
    """An open file as a head and a stream of requests; what is malformed becomes a finding, and ends the stream."""

    def __init__(self, file: BinaryIO, findings: Findings) -> None:
        self._file = file
        self._findings = findings
        self.head: Head | None = None
        self._whole: list[Request] | None = None
        self._open()

    def requests(self) -> Iterator[tuple[int, Request]]:
        """The requests with their numbers in the file, from 1."""
        if self._whole is not None:
            yield from enumerate(self._whole, 1)
        elif self.head is not None:
            yield from self._lines()

    def _open(self) -> None:
        first = self._file.readline(_LONGEST_LINE)
        stripped = first.rstrip(b"\r\n")
        if stripped.endswith(_OPEN):
            self.head = self._parsed(stripped + _CLOSE, _HEAD, "head")
        else:
            content = first + self._file.read(_LARGEST_WHOLE)
            self.head = self._parsed(content, _HEAD, "file")
            if self.head is not None:
                self._whole = self.head.requests
        if self.head is not None and (self.head.format, self.head.version) != (FORMAT, VERSION):
            expected = f"{FORMAT} version {VERSION}"
            self._findings.add("format", "head", expected, f"{self.head.format} version {self.head.version}")

    def _lines(self) -> Iterator[tuple[int, Request]]:
        number, comma = 0, True
        for line in self._file:
            text = line.rstrip(b"\r\n")
            if text == _CLOSE:
                if comma and number:
                    self._findings.add("format", f"request {number}", "no comma before the end", "a comma")
                rest = self._file.read(64)
                if rest:
                    self._findings.add("format", "end", "nothing behind the last line", f"{rest[:20]!r}")
                return
            number += 1
            if not comma:
                self._findings.add("format", f"request {number}", "a comma before it", "none")
                return
            comma = text.endswith(b",")
            request = self._parsed(text[:-1] if comma else text, _REQUEST, f"request {number}")
            if request is None:
                return
            yield number, request
        self._findings.add(
            "complete", "end", "a last line `]}`", f"the file ends after request {number}: it is cut off"
        )

    def _parsed(self, content: bytes, decoder: "msgspec.json.Decoder[Any]", where: str) -> Any:
        try:
            found = decoder.decode(content)
            if _ENCODER.encode(found) != content.strip():
                # Laid out otherwise than we write: then nothing may be said twice, or people read the other one.
                json.loads(content, object_pairs_hook=_distinct)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._findings.add("format", where, "JSON as the format says", str(error)[:200])
            return None
        return found


def parse_leaf(leaf: str) -> dict[str, Any] | None:
    """The fields of a journal's leaf; None when it is none."""
    try:
        found = json.loads(leaf, object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        return None
    return cast(dict[str, Any], found) if isinstance(found, dict) else None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


__all__ = ["Finding", "ProofFile", "head_line", "parse_leaf", "request_line"]
