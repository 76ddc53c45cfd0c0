"""An invoice that its customer can check alone: the file's form, and the verifier that needs only a public key."""

from galerne.billing.proof.findings import RULES, Finding, Findings
from galerne.billing.proof.form import FORMAT, VERSION, Entry, Head, Leaf, Request, UsageLine
from galerne.billing.proof.leaves import Amounts, LineName, canonical, usage_leaf, usage_leaf_hash
from galerne.billing.proof.reading import ProofFile, head_line, request_line
from galerne.billing.proof.requests import CORRECTED, ENDED, is_late, moment_of
from galerne.billing.proof.statement import Billed, Frozen, Statement
from galerne.billing.proof.verification import EMPTIED, ISSUED, Checked, verify_invoice

__all__ = [
    "CORRECTED",
    "EMPTIED",
    "ENDED",
    "FORMAT",
    "ISSUED",
    "RULES",
    "VERSION",
    "Amounts",
    "Billed",
    "Checked",
    "Entry",
    "Finding",
    "Findings",
    "Frozen",
    "Head",
    "Leaf",
    "LineName",
    "ProofFile",
    "Request",
    "Statement",
    "UsageLine",
    "canonical",
    "head_line",
    "is_late",
    "moment_of",
    "request_line",
    "usage_leaf",
    "usage_leaf_hash",
    "verify_invoice",
]
