"""The form of an invoice's proof, version 1: what is in the file that a customer is given. Pure.

Hashes of proofs are base64, roots and digests hexadecimal; a leaf of the journal is its text, byte for byte as it was
hashed. Money is in nano-units or, where its name says so, in minor units of the invoice's currency.
"""

from typing import Any

from msgspec import Struct

from galerne.billing.proof.leaves import LineName

FORMAT = "galerne.invoice-proof"
VERSION = 1


class Leaf(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A leaf of the journal and what shows that it is in the tree of the file's checkpoint; `index` is from 0."""

    index: int
    leaf: str
    proof: list[str]


class Entry(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a request adds to one line."""

    line: LineName
    quantity: int
    nano: int


class Request(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One request on the invoice. `leaves` are what was journalled when it ended and, if it was corrected, then.

    It counts as the last of them says; `billed_as` is the number of the one, from 0, that an earlier invoice billed
    and that is taken back here. `unpriced`: it has lost its price and only that is done. `late`: it was made in an
    earlier month than the invoice is for.
    """

    event_id: str
    entries: list[Entry]
    leaves: list[Leaf]
    late: bool = False
    billed_as: int | None = None
    unpriced: bool = False


class UsageLine(Struct, frozen=True, forbid_unknown_fields=True):
    """What a line of the invoice bills: the requests of `line`, whose last field is the tier of volume of its price.

    `exact_nano` is what they cost, with what volume changes, before the line was rounded to minor units.
    """

    line: LineName
    exact_nano: int


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything but the requests, which come last.

    `invoice` is the frozen text of the invoice, as JSON; `lines` has one for each of its lines, null for what is not
    usage; `issued` is the journal's leaf of its issue; `checkpoint` the signed note under which all leaves here are.
    """

    format: str
    version: int
    checkpoint: str
    issued: Leaf
    invoice: dict[str, Any]
    lines: list[UsageLine | None]
    requests: list[Request] = []
