"""What an invoice bills, request by request, with what proves it: from ratings and the journal to `billing.proof`."""

from galerne.billing.invoice_usage.making import OpenedProof, RequestPage, open_proof, proof_lines, requests_of
from galerne.billing.invoice_usage.routes import router as invoice_usage_router

__all__ = [
    "OpenedProof",
    "RequestPage",
    "invoice_usage_router",
    "open_proof",
    "proof_lines",
    "requests_of",
]
