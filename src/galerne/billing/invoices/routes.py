"""HTTP for invoices: an organisation reads its own, as data, PDF and XML; the operator makes and corrects them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.pdf import to_pdf
from galerne.billing.documents.validation import check_once
from galerne.billing.invoices import correcting, parties, records
from galerne.billing.invoices.closing import finalise_checked
from galerne.billing.invoices.schemas import (
    AddresseeIn,
    CreditNoteIn,
    InvoiceDetailOut,
    InvoiceList,
    InvoiceOut,
    IssuerIn,
    IssuerList,
    IssuerOut,
    ProfileIn,
    ProfileOut,
    TopUpIn,
    VoidIn,
    detail_fields,
    invoice_fields,
    issuer_fields,
    profile_fields,
)
from galerne.billing.prices.decimals import nano_of
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel.web import Reading, RequestClock, RequestDatabase, RequestIds, Text, Transaction

router = APIRouter(tags=["Invoices"])

BillingReader = Annotated[Actor, requires(Permission.BILLING_READ)]
BillingAdmin = Annotated[Actor, requires(Permission.BILLING_MANAGE)]
Operator = Annotated[Actor, requires(Permission.PRICES_MANAGE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/v1/invoices")
async def list_invoices(actor: BillingReader, session: Reading, after: Text = "", limit: Limit = 100) -> InvoiceList:
    """List the organisation's invoices and credit notes, oldest first, from beyond the id `after`."""
    found = await records.list_invoices(session, actor.organisation_id, after, limit)
    return InvoiceList(object="list", data=[InvoiceOut.model_validate(invoice_fields(each)) for each in found])


@router.get("/v1/invoices/{invoice_id}.pdf", response_class=Response)
async def invoice_pdf(invoice_id: Text, actor: BillingReader, database: RequestDatabase) -> Response:
    """The invoice as PDF/A-3 with its EN 16931 XML inside, the same bytes every time."""
    async with database.reading() as session:
        frozen = await records.frozen_document(session, actor, invoice_id)
    pdf = await asyncio.to_thread(to_pdf, frozen.document, frozen.language)
    name = f'attachment; filename="{frozen.document.draft.number}.pdf"'
    return Response(pdf, media_type="application/pdf", headers={"content-disposition": name})


@router.get("/v1/invoices/{invoice_id}.xml", response_class=Response)
async def invoice_xml(invoice_id: Text, actor: BillingReader, session: Reading) -> Response:
    """The invoice as EN 16931 XML (CII); an XRechnung where it goes to a German authority."""
    frozen = await records.frozen_document(session, actor, invoice_id)
    return Response(to_cii(frozen.document, frozen.flavour), media_type="application/xml")


@router.get("/v1/invoices/{invoice_id}")
async def read_invoice(invoice_id: Text, actor: BillingReader, session: Reading) -> InvoiceDetailOut:
    """Show an invoice with its lines and its history."""
    invoice = await records.find_invoice(session, actor, invoice_id)
    lines = await records.invoice_lines(session, invoice_id)
    happenings = await records.happenings_of(session, invoice_id)
    return InvoiceDetailOut.model_validate(detail_fields(invoice, lines, happenings))


@router.post("/v1/admin/invoices/{invoice_id}/finalise")
async def finalise(invoice_id: Text, actor: Operator, database: RequestDatabase, clock: RequestClock) -> InvoiceOut:
    """Check a draft by EN 16931's rules, and Germany's where they apply, and make it final."""
    final = await finalise_checked(database, actor, invoice_id, check_once, clock)
    return InvoiceOut.model_validate(invoice_fields(final))


@router.post("/v1/admin/invoices/{invoice_id}/sent")
async def mark_sent(invoice_id: Text, actor: Operator, session: Transaction, clock: RequestClock) -> InvoiceOut:
    """Note that an invoice went out."""
    return InvoiceOut.model_validate(invoice_fields(await correcting.mark_sent(session, actor, invoice_id, clock)))


@router.post("/v1/admin/invoices/{invoice_id}/void")
async def void(
    invoice_id: Text, body: VoidIn, actor: Operator, session: Transaction, clock: RequestClock
) -> InvoiceOut:
    """Declare an invoice void, on which nothing was paid or credited; its postings are taken back."""
    voided = await correcting.void_invoice(session, actor, invoice_id, body.reason, clock)
    return InvoiceOut.model_validate(invoice_fields(voided))


@router.post("/v1/admin/invoices/{invoice_id}/reissue", status_code=201)
async def reissue(
    invoice_id: Text, actor: Operator, session: Transaction, ids: RequestIds, clock: RequestClock
) -> InvoiceOut:
    """Draft a void invoice again, to whom the organisation's profile says now."""
    drafted = await correcting.reissue_invoice(session, actor, invoice_id, ids, clock)
    return InvoiceOut.model_validate(invoice_fields(drafted))


@router.post("/v1/admin/invoices/{invoice_id}/credit-notes", status_code=201)
async def credit_note(
    invoice_id: Text, body: CreditNoteIn, actor: Operator, session: Transaction, ids: RequestIds, clock: RequestClock
) -> InvoiceOut:
    """Draft a credit note on an invoice, in whole or in part; finalise it like any invoice."""
    invoice = await records.find_invoice(session, actor, invoice_id)
    drafted = await correcting.draft_credit_note(session, actor, body.crediting(invoice), ids, clock)
    return InvoiceOut.model_validate(invoice_fields(drafted))


@router.post("/v1/admin/invoices/top-ups", status_code=201)
async def top_up(
    body: TopUpIn, actor: Operator, session: Transaction, ids: RequestIds, clock: RequestClock
) -> InvoiceOut:
    """Draft an invoice for credit, which is granted once the invoice is paid."""
    asked = correcting.TopUp(
        organisation_id=body.organization_id,
        amount_nano=nano_of(body.amount, param="amount"),
        currency=body.currency,
        request_id=body.request_id,
    )
    return InvoiceOut.model_validate(invoice_fields(await correcting.draft_top_up(session, actor, asked, ids, clock)))


@router.get("/v1/admin/invoice-issuers")
async def list_issuers(actor: Operator, session: Reading) -> IssuerList:
    """List the legal entities that invoice."""
    found = await parties.list_issuers(session)
    return IssuerList(object="list", data=[IssuerOut.model_validate(issuer_fields(each)) for each in found])


@router.put("/v1/admin/invoice-issuers/{issuer_id}")
async def set_issuer(
    issuer_id: Text, body: IssuerIn, actor: Operator, session: Transaction, clock: RequestClock
) -> IssuerOut:
    """Register or change a legal entity that invoices; what it issued keeps what it says."""
    issuer = await parties.set_issuer(session, actor, body.issuer(issuer_id), clock)
    return IssuerOut.model_validate(issuer_fields(issuer))


@router.get("/v1/admin/billing-profile")
async def read_profile(actor: BillingReader, session: Reading) -> ProfileOut:
    """Show to whom the organisation's invoices go."""
    return ProfileOut.model_validate(profile_fields(await parties.need_profile(session, actor.organisation_id)))


@router.put("/v1/admin/billing-profile")
async def change_profile(
    body: AddresseeIn, actor: BillingAdmin, session: Transaction, clock: RequestClock
) -> ProfileOut:
    """Change to whom the organisation's invoices go; in whose name they are issued is the operator's to say."""
    before = await parties.need_profile(session, actor.organisation_id)
    profile = await parties.set_profile(session, actor, body.changed(before), clock)
    return ProfileOut.model_validate(profile_fields(profile))


@router.put("/v1/admin/billing-profiles/{organization_id}")
async def set_profile(
    organization_id: Text, body: ProfileIn, actor: Operator, session: Transaction, clock: RequestClock
) -> ProfileOut:
    """Set to whom an organisation's invoices go, and in whose name they are issued."""
    profile = await parties.set_profile(session, actor, body.profile(organization_id), clock)
    return ProfileOut.model_validate(profile_fields(profile))
