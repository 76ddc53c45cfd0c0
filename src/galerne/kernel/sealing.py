"""Sealing: secrets that the database keeps for us are encrypted with a key that it never sees.

The key is the setting `GALERNE_SEALING_KEY`, or a file in the data folder that is made when it is first needed. Whoever
has a copy of the database alone can open nothing.
"""

import os
import secrets
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from galerne.kernel.errors import Unavailable
from galerne.kernel.settings import Settings

_FILE = "sealing.key"
_VERSION = b"\x01"
_NONCE_BYTES = 12
_SMALLEST_KEY = 32


class Sealer:
    """Seals and opens with AES-256-GCM under a key derived from `secret` by HKDF-SHA256 (RFC 5869)."""

    def __init__(self, secret: bytes) -> None:
        self._ciphers = import_module("galerne.kernel.ciphers")  # when something is sealed, and not before: 8 MB
        self._key: bytes = self._ciphers.derived_key(secret, b"galerne sealing v1")

    def seal(self, plain: bytes, purpose: str) -> bytes:
        """`plain` encrypted; it opens only for the same `purpose`, such as the row and column that hold it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._ciphers.encrypt(self._key, nonce, plain, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """What was sealed for `purpose`; raises `Unavailable` when another key sealed it, or it was altered."""
        nonce, encrypted = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        known = sealed[:1] == _VERSION
        plain = self._ciphers.decrypt(self._key, nonce, encrypted, purpose.encode()) if known else None
        if plain is None:
            raise Unavailable(
                f"The secret '{purpose}' was sealed with another key than this process has. Give every process the "
                f"same GALERNE_SEALING_KEY, or the {_FILE} of the data folder that it was sealed in.",
                code="sealed_with_another_key",
            )
        return plain


def open_sealer(settings: Settings) -> Sealer:
    """The installation's sealer; without the setting its key is a file of the data folder, made if it is not there."""
    if settings.sealing_key is not None:
        return Sealer(settings.sealing_key.get_secret_value().encode())
    return Sealer(_key_in(settings.data / _FILE))


def _key_in(path: Path) -> bytes:
    with suppress(FileExistsError):
        # Written aside and linked into place: whoever finds the file finds all of it, whoever comes second keeps it.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            _write(part, secrets.token_hex(32).encode())
            try:
                os.link(part, path)
            finally:
                part.unlink()
    key = path.read_bytes().strip()
    if len(key) < _SMALLEST_KEY:
        raise Unavailable(f"The file {path} should hold a key of at least {_SMALLEST_KEY} characters.")
    return key


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
