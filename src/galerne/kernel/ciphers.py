"""What OpenSSL does for us: Ed25519 signatures (RFC 8032), and AES-256-GCM under a key from HKDF-SHA256 (RFC 5869).

The only module that imports `cryptography`, which takes 8 MB: those who need it load it when they do (ADR 24).
"""

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["decrypt", "derived_key", "encrypt", "new_seed", "public_key", "sign", "verifies"]


def new_seed() -> bytes:
    """The 32 bytes of a new private key."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key(seed: bytes) -> bytes:
    """The 32 bytes of the public key of `seed`."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, text: bytes) -> bytes:
    """The signature of `seed` over `text`, 64 bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(text)


def verifies(key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether `signature` was made over `text` with the private half of the public `key`."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def derived_key(secret: bytes, info: bytes) -> bytes:
    """A key of 32 bytes from `secret`, another for each `info`."""
    return HKDF(SHA256(), 32, salt=None, info=info).derive(secret)


def encrypt(key: bytes, nonce: bytes, plain: bytes, beside: bytes) -> bytes:
    """`plain` encrypted and, with `beside`, authenticated; no nonce of 12 bytes may ever come twice with a key."""
    return AESGCM(key).encrypt(nonce, plain, beside)


def decrypt(key: bytes, nonce: bytes, encrypted: bytes, beside: bytes) -> bytes | None:
    """What was encrypted; None when the key, the nonce or `beside` is another, or something was altered."""
    try:
        return AESGCM(key).decrypt(nonce, encrypted, beside)
    except (InvalidTag, ValueError):
        return None
