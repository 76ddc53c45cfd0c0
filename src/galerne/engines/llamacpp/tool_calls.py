"""Knows how to read tool calls from text that is still being written."""

import json
import re
import secrets
import string
from dataclasses import dataclass

_HEAD = re.compile(r'[\[,\s}]*\{"name": ("(?:[^"\\]|\\.)*"), "arguments": ')
_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 9  # what mistral-common's validator demands


@dataclass(frozen=True)
class CallPart:
    """News of one tool call: with `id` and `name` it begins, `arguments` is a further piece of its JSON text."""

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass
class CallReader:
    """Reads `[{"name": "…", "arguments": {…}}, …]` piece by piece, in the spelling that the grammar enforces."""

    calls: int = 0
    _waiting: str = ""
    _depth: int = 0
    _inside: bool = False
    _quoted: bool = False
    _escaped: bool = False

    def read(self, text: str) -> list[CallPart]:
        """What `text`, the next piece of the list, tells about the calls."""
        self._waiting += text
        parts: list[CallPart] = []
        while self._waiting:
            if not self._inside:
                head = _HEAD.match(self._waiting)
                if head is None:
                    break
                self._waiting = self._waiting[head.end() :]
                parts.append(CallPart(self.calls, new_call_id(), str(json.loads(head[1])), ""))
                self._inside, self.calls = True, self.calls + 1
            elif piece := self._arguments():
                parts.append(CallPart(self.calls - 1, None, None, piece))
        return parts

    def _arguments(self) -> str:
        for position, character in enumerate(self._waiting):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = character == "\\", character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return self._close(position + 1)
        piece, self._waiting = self._waiting, ""
        return piece

    def _close(self, end: int) -> str:
        piece, self._waiting = self._waiting[:end], self._waiting[end:]
        self._inside = False
        return piece


def new_call_id() -> str:
    """A fresh tool-call id: nine letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
