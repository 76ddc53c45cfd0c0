"""HTTP for what an invoice bills: its requests with their proofs, page by page, or all of it as one file to check."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.invoice_usage.making import open_proof, proof_lines, requests_of
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import Forbidden
from galerne.kernel.web import Reading, RequestDatabase, Text

router = APIRouter(prefix="/v1/invoices", tags=["Invoices"])

BillingReader = Annotated[Actor, requires(Permission.BILLING_READ)]


class InvoiceUsageQuery(BaseModel):
    """Which requests. `format=proof` gives everything as the file that `galerne verify invoice` checks."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["page", "proof"] = "page"
    limit: int = Field(100, ge=1, le=1000)
    after: Text = Field("", description="`last_id` of the page before.", max_length=64)


class LineNameOut(BaseModel):
    """On which line something counts."""

    model_id: str
    token_class: str
    service_tier: str
    zone: str
    batch: bool
    rate_id: str
    tier_index: int


class UsageEntryOut(BaseModel):
    """What a request adds to a line, in units and in nano-units of the invoice's currency."""

    line: LineNameOut
    quantity: int
    nano: int


class JournalLeafOut(BaseModel):
    """A leaf of the journal with its index from 0 and, in base64, the hashes that prove it under the checkpoint."""

    index: int
    leaf: str
    proof: list[str]


class InvoicedRequestOut(BaseModel):
    """A request on an invoice, and what was journalled when it ended or was corrected."""

    event_id: str
    entries: list[UsageEntryOut]
    leaves: list[JournalLeafOut]
    late: bool
    billed_as: int | None
    unpriced: bool


class InvoiceUsageOut(BaseModel):
    """A page of an invoice's requests in the order of their ids; the leaves are under `checkpoint`, a signed note."""

    object: Literal["list"]
    invoice_id: str
    checkpoint: str
    data: list[InvoicedRequestOut]
    has_more: bool
    last_id: str | None


@router.get("/{invoice_id}/usage", response_model=InvoiceUsageOut)
async def read_invoice_usage(
    invoice_id: Text,
    query: Annotated[InvoiceUsageQuery, Query()],
    actor: BillingReader,
    session: Reading,
    database: RequestDatabase,
) -> Any:
    """List the requests that an invoice bills, each with the proof of what was counted; or take all as one file."""
    if actor.workspace_id is not None:
        raise Forbidden("An invoice is the whole organisation's; this key is bound to one workspace.")
    opened = await open_proof(session, actor, invoice_id)
    if query.format == "proof":
        name = f"{opened.invoice.number or invoice_id}.proof.json"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(proof_lines(database, opened), media_type="application/json", headers=headers)
    page = await requests_of(session, opened, query.after, query.limit)
    return InvoiceUsageOut(
        object="list",
        invoice_id=invoice_id,
        checkpoint=opened.signed.note,
        data=[InvoicedRequestOut.model_validate(msgspec.to_builtins(each)) for each in page.requests],
        has_more=page.more,
        last_id=page.requests[-1].event_id if page.requests else None,
    )
