"""Identifiers: sortable by time, unique without asking a database."""

import os
import secrets
import threading
import time

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Ids:
    """Makes UUIDv7 ids (RFC 9562 section 5.7); a 12-bit counter sorts those of one process as they were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> str:
        """A new id: 32 hexadecimal digits."""
        with self._lock:
            tick = max((time.time_ns() // 1_000_000) << 12, self._last + 1)
            self._last = tick
        millis, counter = tick >> 12, tick & 0xFFF
        random = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
        value = (millis << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | random
        return f"{value:032x}"


def token(length: int) -> str:
    """`length` characters of base 62 from the system's secure generator; 22 characters hold 131 bits."""
    return "".join(secrets.choice(_BASE62) for _ in range(length))
