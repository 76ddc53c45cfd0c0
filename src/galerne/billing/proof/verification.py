"""Checking an invoice's proof with nothing but a public key: every rule, in one walk over the file. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

from galerne.billing.proof.findings import Findings
from galerne.billing.proof.form import Head
from galerne.billing.proof.leaves import canonical
from galerne.billing.proof.reading import ProofFile
from galerne.billing.proof.requests import LeafChecker, RequestChecker, Terms
from galerne.billing.proof.statement import Frozen, Statement, check_amounts, check_sums, parse_statement, prices_of
from galerne.journal.checkpoint import Checkpoint, verify_checkpoint
from galerne.journal.merkle import ProofRefused
from galerne.journal.note import VerifierKey

ISSUED = "invoice.finalised"
"""The action of the leaf that an invoice leaves in the journal when it is issued."""
EMPTIED = "invoice.emptied"
"""The same of an invoice over nothing to pay, which has no number: credit has paid all of it, say."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a verifier has seen. The invoice is proved if nothing was found to be wrong.

    `requests` of which `late` were made in earlier months; `paid_nano` is what requests took from credit when they
    ended; `signed` the checkpoint, None where none can be believed.
    """

    findings: Findings
    statement: Statement | None = None
    signed: Checkpoint | None = None
    requests: int = 0
    entries: int = 0
    late: int = 0
    paid_nano: int = 0

    @property
    def proved(self) -> bool:
        """Whether nothing is wrong."""
        return self.findings.count == 0 and self.statement is not None


def verify_invoice(
    file: BinaryIO, keys: Sequence[VerifierKey], progress: Callable[[int], None] = lambda _count: None
) -> Checked:
    """Check the file of a proof; `progress` is told how many requests were checked so far, now and then.

    Never raises for what is in the file: whatever is wrong is a finding.
    """
    findings = Findings()
    opened = ProofFile(file, findings)
    head = opened.head
    if head is None or findings.count:
        return Checked(findings)
    signed = _signed(head, keys, findings)
    leaves = LeafChecker(signed, findings)
    statement = parse_statement(head.invoice, head.lines, findings)
    if statement is None:
        return Checked(findings, None, signed)
    frozen = statement.frozen
    _check_issued(head, frozen, leaves, findings)
    check_amounts(statement, findings)
    requests = RequestChecker(
        Terms(frozen.organisation_id, frozen.period or "", prices_of(statement)), leaves, findings
    )
    for number, request in opened.requests():
        requests.take(request)
        if number % _OFTEN == 0:
            progress(number)
    progress(requests.count)
    _check_whole(frozen, requests, findings)
    check_sums(statement, requests.sums, findings)
    return Checked(findings, statement, signed, requests.count, requests.tree.size, requests.late, requests.paid_nano)


_OFTEN = 500


def _signed(head: Head, keys: Sequence[VerifierKey], findings: Findings) -> Checkpoint | None:
    try:
        return verify_checkpoint(head.checkpoint, keys)
    except ProofRefused as problem:
        findings.add("checkpoint", "head", "a checkpoint signed with a key that you trust", problem.message)
        return None


def _check_issued(head: Head, frozen: Frozen, leaves: LeafChecker, findings: Findings) -> None:
    where = "the journal's leaf of its issue"
    fields = leaves.check(head.issued, where)
    if fields is None:
        return
    detail = fields["detail"]
    is_empty = frozen.is_empty
    findings.same("finalised", f"{where}, action", EMPTIED if is_empty else ISSUED, fields.get("action"))
    findings.same("finalised", f"{where}, resource", f"invoice:{frozen.invoice_id}", fields.get("resource"))
    # What is not to be paid has no number: its text bears its id in that place.
    number = frozen.invoice_id if is_empty and detail.get("number") is None else detail.get("number")
    findings.same("finalised", "number", number, frozen.document.draft.number)
    digest = sha256(canonical(head.invoice)).hexdigest()
    findings.same("finalised", "SHA-256 of the invoice's text", detail.get("sha256"), digest)
    findings.same("finalised", "root over its entries", detail.get("usage_root"), frozen.usage_root)
    findings.same("finalised", "number of its entries", detail.get("usage_size"), frozen.usage_size)


def _check_whole(frozen: Frozen, requests: RequestChecker, findings: Findings) -> None:
    size = frozen.usage_size
    if requests.tree.size != size:
        what = f"{size} entries, for the tree has so many leaves"
        findings.add("complete", "requests", what, f"{requests.tree.size} in {requests.count} requests")
    findings.same("root", "root over all entries", frozen.usage_root, requests.tree.root().hex())
