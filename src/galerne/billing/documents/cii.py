"""Writes a document as Cross Industry Invoice XML: EN 16931's syntax, as Factur-X embeds it and XRechnung takes it.

The order of elements is the schema's (UN/CEFACT D22B); BT and BG name what each element carries.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from galerne.billing.documents.amounts import from_minor
from galerne.billing.documents.cii_names import EN16931, NAMESPACES, PEPPOL_PROCESS, XRECHNUNG, q
from galerne.billing.documents.document import (
    Address,
    Adjustment,
    Document,
    Identifier,
    Kind,
    Line,
    Party,
    Payment,
    Period,
    Totals,
    Vat,
    VatSubtotal,
)

Flavour = Literal["factur-x", "xrechnung"]
TYPE_CODES: Mapping[Kind, str] = {"invoice": "380", "credit_note": "381"}
"""UNTDID 1001."""

for _prefix, _uri in NAMESPACES.items():
    ElementTree.register_namespace(_prefix, _uri)


def to_cii(document: Document, flavour: Flavour = "factur-x") -> bytes:
    """The document as UTF-8 XML, the same bytes for the same document.

    `factur-x` is the profile EN 16931 (COMFORT), `xrechnung` names the German CIUS 3.0; what that asks for on top is
    `xrechnung_faults`' to say.
    """
    root = Element(q("rsm:CrossIndustryInvoice"))
    _context(root, flavour)
    _header(root, document)
    transaction = SubElement(root, q("rsm:SupplyChainTradeTransaction"))
    for line, amount in zip(document.draft.lines, document.line_minor, strict=True):
        _line(transaction, line, amount, document.draft.currency)
    _agreement(transaction, document)
    _delivery(transaction, document)
    _settlement(transaction, document)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _text(parent: Element, name: str, text: str, **attributes: str) -> None:
    """Adds the element, unless there is nothing to say."""
    if text:
        SubElement(parent, q(name), attributes).text = text


def _date(parent: Element, name: str, day: str, namespace: str = "udt") -> None:
    if day:
        holder = SubElement(parent, q(name))
        SubElement(holder, q(f"{namespace}:DateTimeString"), {"format": "102"}).text = day


def _decimal(value: Decimal) -> str:
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _money(minor: int, currency: str) -> str:
    """At most two decimals (BR-DEC-*); `to_minor` has seen to it that no more are needed."""
    return format(from_minor(minor, currency).quantize(Decimal("0.01")), "f")


def _amount(parent: Element, name: str, minor: int, currency: str, **attributes: str) -> None:
    _text(parent, name, _money(minor, currency), **attributes)


def _identifier(parent: Element, name: str, identifier: Identifier | None) -> None:
    if identifier is None:
        return
    attributes = {"schemeID": identifier.scheme} if identifier.scheme else {}
    SubElement(parent, q(name), attributes).text = identifier.value


def _context(root: Element, flavour: Flavour) -> None:
    context = SubElement(root, q("rsm:ExchangedDocumentContext"))
    if flavour == "xrechnung":
        process = SubElement(context, q("ram:BusinessProcessSpecifiedDocumentContextParameter"))
        _text(process, "ram:ID", PEPPOL_PROCESS)
    guideline = SubElement(context, q("ram:GuidelineSpecifiedDocumentContextParameter"))
    _text(guideline, "ram:ID", XRECHNUNG if flavour == "xrechnung" else EN16931)


def _header(root: Element, document: Document) -> None:
    draft = document.draft
    header = SubElement(root, q("rsm:ExchangedDocument"))
    _text(header, "ram:ID", draft.number)
    _text(header, "ram:TypeCode", TYPE_CODES[draft.kind])
    _date(header, "ram:IssueDateTime", f"{draft.issued_on:%Y%m%d}")
    for note in draft.notes:
        _text(SubElement(header, q("ram:IncludedNote")), "ram:Content", note)


def _line(transaction: Element, line: Line, amount: int, currency: str) -> None:
    item = SubElement(transaction, q("ram:IncludedSupplyChainTradeLineItem"))
    _text(SubElement(item, q("ram:AssociatedDocumentLineDocument")), "ram:LineID", line.id)
    product = SubElement(item, q("ram:SpecifiedTradeProduct"))
    _text(product, "ram:SellerAssignedID", line.item_id)
    _text(product, "ram:Name", line.name)
    _text(product, "ram:Description", line.description)
    price = SubElement(SubElement(item, q("ram:SpecifiedLineTradeAgreement")), q("ram:NetPriceProductTradePrice"))
    _text(price, "ram:ChargeAmount", _decimal(line.price))
    if line.base_quantity != 1:
        _text(price, "ram:BasisQuantity", str(line.base_quantity), unitCode=line.unit)
    delivery = SubElement(item, q("ram:SpecifiedLineTradeDelivery"))
    _text(delivery, "ram:BilledQuantity", _decimal(line.quantity), unitCode=line.unit)
    settlement = SubElement(item, q("ram:SpecifiedLineTradeSettlement"))
    tax = SubElement(settlement, q("ram:ApplicableTradeTax"))
    _category(tax, line.vat)
    _period(settlement, line.period)
    total = SubElement(settlement, q("ram:SpecifiedTradeSettlementLineMonetarySummation"))
    _amount(total, "ram:LineTotalAmount", amount, currency)


def _category(tax: Element, vat: Vat) -> None:
    _text(tax, "ram:TypeCode", "VAT")
    _text(tax, "ram:CategoryCode", vat.category)
    if vat.category != "O":  # BR-O-05: what is outside the scope has no rate
        _text(tax, "ram:RateApplicablePercent", _decimal(vat.rate))


def _period(parent: Element, period: Period | None) -> None:
    if period is None:
        return
    billing = SubElement(parent, q("ram:BillingSpecifiedPeriod"))
    _date(billing, "ram:StartDateTime", f"{period.start:%Y%m%d}")
    _date(billing, "ram:EndDateTime", f"{period.end:%Y%m%d}")


def _agreement(transaction: Element, document: Document) -> None:
    draft = document.draft
    # BR-O-02 to BR-O-04: a document outside the scope of VAT carries nobody's VAT id
    with_vat_ids = all(row.vat.category != "O" for row in document.vat)
    agreement = SubElement(transaction, q("ram:ApplicableHeaderTradeAgreement"))
    _text(agreement, "ram:BuyerReference", draft.buyer_reference)
    _party(SubElement(agreement, q("ram:SellerTradeParty")), draft.seller, with_vat_ids)
    _party(SubElement(agreement, q("ram:BuyerTradeParty")), draft.buyer, with_vat_ids)
    if draft.order_reference:
        order = SubElement(agreement, q("ram:BuyerOrderReferencedDocument"))
        _text(order, "ram:IssuerAssignedID", draft.order_reference)
    if draft.contract_reference:
        contract = SubElement(agreement, q("ram:ContractReferencedDocument"))
        _text(contract, "ram:IssuerAssignedID", draft.contract_reference)


def _party(element: Element, party: Party, with_vat_id: bool) -> None:
    _text(element, "ram:Name", party.name)
    _text(element, "ram:Description", party.legal_form)
    if party.legal_id:
        _identifier(SubElement(element, q("ram:SpecifiedLegalOrganization")), "ram:ID", party.legal_id)
    if party.contact:
        contact = SubElement(element, q("ram:DefinedTradeContact"))
        _text(contact, "ram:PersonName", party.contact.name)
        phone = SubElement(contact, q("ram:TelephoneUniversalCommunication"))
        _text(phone, "ram:CompleteNumber", party.contact.phone)
        _text(SubElement(contact, q("ram:EmailURIUniversalCommunication")), "ram:URIID", party.contact.email)
    _address(SubElement(element, q("ram:PostalTradeAddress")), party.address)
    if party.electronic_address:
        _identifier(SubElement(element, q("ram:URIUniversalCommunication")), "ram:URIID", party.electronic_address)
    if party.tax_number:
        _identifier(_registration(element), "ram:ID", Identifier(value=party.tax_number, scheme="FC"))
    if party.vat_id and with_vat_id:
        _identifier(_registration(element), "ram:ID", Identifier(value=party.vat_id, scheme="VA"))


def _registration(element: Element) -> Element:
    return SubElement(element, q("ram:SpecifiedTaxRegistration"))


def _address(element: Element, address: Address) -> None:
    _text(element, "ram:PostcodeCode", address.postcode)
    _text(element, "ram:LineOne", address.line1)
    _text(element, "ram:LineTwo", address.line2)
    _text(element, "ram:CityName", address.city)
    _text(element, "ram:CountryID", address.country)
    _text(element, "ram:CountrySubDivisionName", address.subdivision)


def _delivery(transaction: Element, document: Document) -> None:
    delivery = SubElement(transaction, q("ram:ApplicableHeaderTradeDelivery"))
    day = document.draft.supplied_on
    if day:
        event = SubElement(delivery, q("ram:ActualDeliverySupplyChainEvent"))
        _date(event, "ram:OccurrenceDateTime", f"{day:%Y%m%d}")


def _settlement(transaction: Element, document: Document) -> None:
    draft = document.draft
    settlement = SubElement(transaction, q("ram:ApplicableHeaderTradeSettlement"))
    _text(settlement, "ram:PaymentReference", draft.payment.reference)
    if draft.accounting:
        _text(settlement, "ram:TaxCurrencyCode", draft.accounting.currency)
    _text(settlement, "ram:InvoiceCurrencyCode", draft.currency)
    _means(settlement, draft.payment)
    for row in document.vat:
        _tax_row(settlement, row, draft.currency)
    _period(settlement, draft.period)
    for adjustment in draft.adjustments:
        _adjustment(settlement, adjustment, draft.currency)
    if draft.payment.terms or draft.due_on:
        terms = SubElement(settlement, q("ram:SpecifiedTradePaymentTerms"))
        _text(terms, "ram:Description", draft.payment.terms)
        _date(terms, "ram:DueDateDateTime", f"{draft.due_on:%Y%m%d}" if draft.due_on else "")
    _totals(settlement, document)
    if draft.preceding:
        preceding = SubElement(settlement, q("ram:InvoiceReferencedDocument"))
        _text(preceding, "ram:IssuerAssignedID", draft.preceding.number)
        _date(preceding, "ram:FormattedIssueDateTime", f"{draft.preceding.issued_on:%Y%m%d}", "qdt")


def _means(settlement: Element, payment: Payment) -> None:
    """UNCL 4461: 58 a SEPA transfer, 54 a card, 1 nothing agreed."""
    means = SubElement(settlement, q("ram:SpecifiedTradeSettlementPaymentMeans"))
    _text(means, "ram:TypeCode", "58" if payment.iban else "54" if payment.card_last4 else "1")
    if payment.card_last4:
        card = SubElement(means, q("ram:ApplicableTradeSettlementFinancialCard"))
        _text(card, "ram:ID", payment.card_last4)
    if payment.iban:
        account = SubElement(means, q("ram:PayeePartyCreditorFinancialAccount"))
        _text(account, "ram:IBANID", payment.iban.replace(" ", ""))
        _text(account, "ram:AccountName", payment.account_name)
    if payment.iban and payment.bic:
        _text(SubElement(means, q("ram:PayeeSpecifiedCreditorFinancialInstitution")), "ram:BICID", payment.bic)


def _tax_row(settlement: Element, row: VatSubtotal, currency: str) -> None:
    tax = SubElement(settlement, q("ram:ApplicableTradeTax"))
    _amount(tax, "ram:CalculatedAmount", row.tax_minor, currency)
    _text(tax, "ram:TypeCode", "VAT")
    _text(tax, "ram:ExemptionReason", row.vat.reason)
    _amount(tax, "ram:BasisAmount", row.basis_minor, currency)
    _text(tax, "ram:CategoryCode", row.vat.category)
    _text(tax, "ram:ExemptionReasonCode", row.vat.reason_code)
    # BR-48 wants a rate unless the category is O; the schematron takes 0 there as well
    _text(tax, "ram:RateApplicablePercent", _decimal(row.vat.rate) if row.vat.category != "O" else "")


def _adjustment(settlement: Element, adjustment: Adjustment, currency: str) -> None:
    element = SubElement(settlement, q("ram:SpecifiedTradeAllowanceCharge"))
    indicator = SubElement(element, q("ram:ChargeIndicator"))
    _text(indicator, "udt:Indicator", "true" if adjustment.is_charge else "false")
    _amount(element, "ram:ActualAmount", adjustment.amount_minor, currency)
    _text(element, "ram:Reason", adjustment.reason)
    tax = SubElement(element, q("ram:CategoryTradeTax"))
    _category(tax, adjustment.vat)


def _totals(settlement: Element, document: Document) -> None:
    totals, draft = document.totals, document.draft
    element = SubElement(settlement, q("ram:SpecifiedTradeSettlementHeaderMonetarySummation"))
    _summary(element, totals, draft.currency)
    _amount(element, "ram:TaxTotalAmount", totals.tax_minor, draft.currency, currencyID=draft.currency)
    if draft.accounting and totals.accounting_tax_minor is not None:
        currency = draft.accounting.currency
        _amount(element, "ram:TaxTotalAmount", totals.accounting_tax_minor, currency, currencyID=currency)
    if totals.rounding_minor:
        _amount(element, "ram:RoundingAmount", totals.rounding_minor, draft.currency)
    _amount(element, "ram:GrandTotalAmount", totals.gross_minor, draft.currency)
    if totals.paid_minor:
        _amount(element, "ram:TotalPrepaidAmount", totals.paid_minor, draft.currency)
    _amount(element, "ram:DuePayableAmount", totals.due_minor, draft.currency)


def _summary(element: Element, totals: Totals, currency: str) -> None:
    _amount(element, "ram:LineTotalAmount", totals.lines_minor, currency)
    if totals.charges_minor:
        _amount(element, "ram:ChargeTotalAmount", totals.charges_minor, currency)
    if totals.allowances_minor:
        _amount(element, "ram:AllowanceTotalAmount", totals.allowances_minor, currency)
    _amount(element, "ram:TaxBasisTotalAmount", totals.net_minor, currency)
