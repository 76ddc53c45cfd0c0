"""Signed notes as C2SP signed-note defines them: text, a blank line, and a line for each Ed25519 signature. Pure.

A note is worth nothing without a key that its reader already trusts. Public keys travel as text (`VerifierKey.text`).
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from galerne.journal.merkle import ProofRefused

_ED25519 = b"\x01"  # the signature type of the specification
_KEY_BYTES = 32
_ID_BYTES = 4
_SIGNATURE_BYTES = 64
_LARGEST_NOTE = 100_000
_MOST_SIGNATURES = 100
_NAME = re.compile(r"[^\s+\x00-\x1f]{1,200}")
_SIGNATURE_LINE = re.compile(r"— (\S+) (\S+)")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A name and the 32 bytes of an Ed25519 public key; raises `ProofRefused` when they are none."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not valid_name(self.name):
            raise ProofRefused("A key's name is 1 to 200 characters without spaces and plus signs.")
        if len(self.public_key) != _KEY_BYTES:
            raise ProofRefused("An Ed25519 public key is 32 bytes long.")

    @property
    def id(self) -> str:
        """8 hexadecimal digits: the start of SHA-256(name || 0x0A || 0x01 || public key)."""
        said = self.name.encode() + b"\n" + _ED25519 + self.public_key
        return hashlib.sha256(said).digest()[:_ID_BYTES].hex()

    @property
    def text(self) -> str:
        """The key in one word, `<name>+<id>+<base64(0x01 || public key)>`, as Go's note package writes it."""
        return f"{self.name}+{self.id}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Whether `signature` was made over `text` with the private half of this key."""
        return _ciphers().verifies(self.public_key, signature, text)


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs; its private half is never shown."""

    name: str
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> "Signer":
        """A new key under `name`."""
        return cls(name, _ciphers().new_seed())

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, _ciphers().public_key(self.seed))

    def sign(self, text: bytes) -> bytes:
        """The signature over `text`, RFC 8032."""
        return _ciphers().sign(self.seed, text)


def _ciphers() -> Any:
    return import_module("galerne.kernel.ciphers")  # when something is signed or verified, and not before: 8 MB


def valid_name(name: str) -> bool:
    """Whether a key may be called so: neither spaces nor plus signs nor control characters in it."""
    return _NAME.fullmatch(name) is not None


def parse_key(text: str) -> VerifierKey:
    """The key that `VerifierKey.text` wrote; raises `ProofRefused` when it is none, or its id is another key's."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ProofRefused("A public key looks like NAME+0123abcd+BASE64; this is none.") from error
    if raw[:1] != _ED25519:
        raise ProofRefused("This public key is not an Ed25519 key.")
    key = VerifierKey(name, raw[1:])
    if key.id != key_id:
        raise ProofRefused(f"This public key's id should be {key.id} and is {key_id[:16]}: it was altered.")
    return key


def sign_note(text: str, signers: Sequence[Signer]) -> str:
    """`text`, which ends with a newline, with a signature line of each of `signers`."""
    lines = [
        f"— {key.name} {base64.b64encode(bytes.fromhex(key.verifier.id) + key.sign(text.encode())).decode()}\n"
        for key in signers
    ]
    return f"{text}\n{''.join(lines)}"


def open_note(note: str, keys: Sequence[VerifierKey]) -> tuple[str, list[VerifierKey]]:
    """The text of `note` and which of `keys` have signed it, at least one.

    Signatures of other keys are passed over. Raises `ProofRefused` when the note is malformed, when none of `keys` has
    signed it, or when a signature that claims to be of one of them is not.
    """
    text, signatures = _parsed(note)
    signed: list[VerifierKey] = []
    for name, raw in signatures:
        key = next((each for each in keys if (each.name, each.id) == (name, raw[:_ID_BYTES].hex())), None)
        if key is None or key in signed:
            continue
        if not key.verifies(raw[_ID_BYTES:], text.encode()):
            raise ProofRefused(
                f"The signature of {key.name} ({key.id}) is not over this text: one of them was altered."
            )
        signed.append(key)
    if not signed:
        raise ProofRefused("None of the keys given has signed this note.")
    return text, signed


def _parsed(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    text, separator, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    control = any(character < " " and character != "\n" for character in note)
    too_long = len(note) > _LARGEST_NOTE or len(lines) > _MOST_SIGNATURES + 1
    if not separator or lines[-1] or len(lines) < 2 or control or too_long:
        raise ProofRefused("This is not a signed note: text, an empty line, and a line for each signature.")
    return f"{text}\n", [_signature(line) for line in lines[:-1]]


def _signature(line: str) -> tuple[str, bytes]:
    found = _SIGNATURE_LINE.fullmatch(line)
    if found is None:
        raise ProofRefused("A signature line of the note is not of the form: — name base64.")
    try:
        raw = base64.b64decode(found[2], validate=True)
    except ValueError as error:
        raise ProofRefused("A signature of the note is not base64.") from error
    if len(raw) <= _ID_BYTES:
        raise ProofRefused("A signature of the note is too short.")
    return found[1], raw
