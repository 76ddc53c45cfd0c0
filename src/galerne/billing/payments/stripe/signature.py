"""Whether a webhook comes from Stripe: HMAC-SHA256 over its time and its raw body, as Stripe documents its signatures.

The header is `t=UNIX_SECONDS,v1=HEX[,v1=HEX…]`, several while a secret is being rolled; other schemes are ignored.
"""

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from galerne.kernel import BadRequest

TOLERANCE_S = 300
"""How far a signature's time may lie from ours: what is older is a replay."""

_MOST_HEADER = 4096
_TIME = re.compile("[0-9]{1,12}", re.ASCII)


def sign(payload: bytes, secret: str, at: datetime) -> str:
    """The header that belongs to `payload`, signed at that time."""
    seconds = str(int(at.timestamp()))
    return f"t={seconds},v1={_digest(payload, secret, seconds)}"


def verify_signature(payload: bytes, header: str, secrets: Sequence[str], now: datetime) -> None:
    """Return if one of the secrets signed exactly these bytes within the tolerance of `now`.

    Raises `BadRequest` (code `signature_invalid`), which says nothing of what was expected.
    """
    parts = [part.strip().partition("=") for part in header[:_MOST_HEADER].split(",")]
    times = [value for name, _, value in parts if name == "t"]
    given = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not _TIME.fullmatch(times[0]) or not given:
        raise _invalid("The signature is missing, or is none.")
    expected = [_digest(payload, secret, times[0]) for secret in secrets]
    # Each is compared, in constant time, whichever fits.
    fits = [hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in given]
    if not any(fits):
        raise _invalid("The signature is not that of this body.")
    if abs(now.timestamp() - int(times[0])) > TOLERANCE_S:
        raise _invalid("The signature is too old, or the clocks differ.")


def _digest(payload: bytes, secret: str, seconds: str) -> str:
    return hmac.new(secret.encode(), seconds.encode() + b"." + payload, sha256).hexdigest()


def _invalid(why: str) -> BadRequest:
    return BadRequest(why, code="signature_invalid")
