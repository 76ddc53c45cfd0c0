"""Reads a Cross Industry Invoice back into a document, and refuses one whose amounts don't follow from its lines.

What the XML doesn't carry is empty: the source of an exchange rate, and VAT ids outside the scope of VAT. Allowances
on lines and gross prices, which `to_cii` never writes, are refused rather than dropped.
"""

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import cast
from xml.etree.ElementTree import Element

from galerne.billing.documents.amounts import decimals_of, from_minor
from galerne.billing.documents.cii import TYPE_CODES
from galerne.billing.documents.cii_names import NAMESPACES
from galerne.billing.documents.document import (
    AccountingCurrency,
    Address,
    Adjustment,
    Contact,
    Document,
    Draft,
    Identifier,
    Kind,
    Line,
    Party,
    Payment,
    Period,
    Preceding,
    Vat,
    VatCategory,
    compute,
)
from galerne.billing.documents.xml import parse_xml
from galerne.kernel import Unprocessable

_KINDS: dict[str, Kind] = {code: kind for kind, code in TYPE_CODES.items()}
_Key = tuple[str, Decimal]


def from_cii(xml: bytes) -> Document:
    """The document that this XML says; its amounts are computed anew and compared with those stated.

    Raises `Unprocessable` for what is no such XML, uses what isn't read here, or doesn't add up.
    """
    try:
        document = compute(_draft(parse_xml(xml)))
        _compare(document, parse_xml(xml))
    except (InvalidOperation, ValueError, KeyError) as broken:
        raise Unprocessable(f"The invoice's XML says {broken!r}, which is no such value", code="invalid_xml") from None
    return document


def _find(element: Element, path: str) -> Element:
    found = element.find(path, NAMESPACES)
    if found is None:
        raise Unprocessable(f"The invoice's XML has no {path}", code="invalid_xml")
    return found


def _text(element: Element, path: str) -> str:
    return element.findtext(path, "", NAMESPACES)


def _day(element: Element, path: str) -> date | None:
    text = element.findtext(f"{path}/udt:DateTimeString", None, NAMESPACES)
    text = text or element.findtext(f"{path}/qdt:DateTimeString", None, NAMESPACES)
    return datetime.strptime(text, "%Y%m%d").date() if text else None  # noqa: DTZ007 - a day has no time zone


def _required_day(element: Element, path: str) -> date:
    day = _day(element, path)
    if day is None:
        raise Unprocessable(f"The invoice's XML has no {path}", code="invalid_xml")
    return day


def _minor(element: Element, path: str, currency: str) -> int:
    exact = Decimal(_text(element, path) or "0").scaleb(decimals_of(currency))
    if exact != int(exact):
        raise Unprocessable(f"{path} has more decimals than {currency} has", code="invalid_xml")
    return int(exact)


def _draft(root: Element) -> Draft:
    header = _find(root, "rsm:ExchangedDocument")
    transaction = _find(root, "rsm:SupplyChainTradeTransaction")
    agreement = _find(transaction, "ram:ApplicableHeaderTradeAgreement")
    delivery = _find(transaction, "ram:ApplicableHeaderTradeDelivery")
    settlement = _find(transaction, "ram:ApplicableHeaderTradeSettlement")
    totals = _find(settlement, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    currency = _text(settlement, "ram:InvoiceCurrencyCode")
    reasons = dict(_reasons(settlement))
    return Draft(
        kind=_KINDS[_text(header, "ram:TypeCode")],
        number=_text(header, "ram:ID"),
        issued_on=_required_day(header, "ram:IssueDateTime"),
        seller=_party(_find(agreement, "ram:SellerTradeParty")),
        buyer=_party(_find(agreement, "ram:BuyerTradeParty")),
        currency=currency,
        lines=tuple(
            _line(item, reasons) for item in transaction.iterfind("ram:IncludedSupplyChainTradeLineItem", NAMESPACES)
        ),
        due_on=_day(settlement, "ram:SpecifiedTradePaymentTerms/ram:DueDateDateTime"),
        supplied_on=_day(delivery, "ram:ActualDeliverySupplyChainEvent/ram:OccurrenceDateTime"),
        period=_period(settlement),
        adjustments=tuple(
            _adjustment(each, reasons, currency)
            for each in settlement.iterfind("ram:SpecifiedTradeAllowanceCharge", NAMESPACES)
        ),
        notes=tuple(_text(note, "ram:Content") for note in header.iterfind("ram:IncludedNote", NAMESPACES)),
        preceding=_preceding(settlement),
        payment=_payment(settlement),
        buyer_reference=_text(agreement, "ram:BuyerReference"),
        order_reference=_text(agreement, "ram:BuyerOrderReferencedDocument/ram:IssuerAssignedID"),
        contract_reference=_text(agreement, "ram:ContractReferencedDocument/ram:IssuerAssignedID"),
        accounting=_accounting(settlement, totals, currency),
        paid_minor=_minor(totals, "ram:TotalPrepaidAmount", currency),
        rounding_minor=_minor(totals, "ram:RoundingAmount", currency),
    )


def _reasons(settlement: Element) -> Iterable[tuple[_Key, Vat]]:
    for row in settlement.iterfind("ram:ApplicableTradeTax", NAMESPACES):
        key = _key(row)
        yield (
            key,
            Vat(
                category=cast(VatCategory, key[0]),
                rate=key[1],
                reason_code=_text(row, "ram:ExemptionReasonCode"),
                reason=_text(row, "ram:ExemptionReason"),
            ),
        )


def _key(tax: Element) -> _Key:
    return _text(tax, "ram:CategoryCode"), Decimal(_text(tax, "ram:RateApplicablePercent") or 0)


def _line(item: Element, reasons: dict[_Key, Vat]) -> Line:
    for unread in (
        "ram:SpecifiedLineTradeSettlement/ram:SpecifiedTradeAllowanceCharge",
        "ram:SpecifiedLineTradeAgreement/ram:GrossPriceProductTradePrice",
    ):
        if item.find(unread, NAMESPACES) is not None:
            raise Unprocessable(f"A line has {unread}, which is not read", code="invalid_xml")
    product = _find(item, "ram:SpecifiedTradeProduct")
    price = _find(item, "ram:SpecifiedLineTradeAgreement/ram:NetPriceProductTradePrice")
    quantity = _find(item, "ram:SpecifiedLineTradeDelivery/ram:BilledQuantity")
    settlement = _find(item, "ram:SpecifiedLineTradeSettlement")
    return Line(
        id=_text(item, "ram:AssociatedDocumentLineDocument/ram:LineID"),
        name=_text(product, "ram:Name"),
        description=_text(product, "ram:Description"),
        item_id=_text(product, "ram:SellerAssignedID"),
        quantity=Decimal(quantity.text or ""),
        unit=quantity.get("unitCode", ""),
        price=Decimal(_text(price, "ram:ChargeAmount")),
        base_quantity=int(_text(price, "ram:BasisQuantity") or 1),
        vat=reasons[_key(_find(settlement, "ram:ApplicableTradeTax"))],
        period=_period(settlement),
    )


def _period(parent: Element) -> Period | None:
    element = parent.find("ram:BillingSpecifiedPeriod", NAMESPACES)
    if element is None:
        return None
    return Period(start=_required_day(element, "ram:StartDateTime"), end=_required_day(element, "ram:EndDateTime"))


def _party(element: Element) -> Party:
    address = _find(element, "ram:PostalTradeAddress")
    registrations = element.findall("ram:SpecifiedTaxRegistration/ram:ID", NAMESPACES)
    numbers = {each.get("schemeID", ""): each.text or "" for each in registrations}
    return Party(
        name=_text(element, "ram:Name"),
        legal_form=_text(element, "ram:Description"),
        address=Address(
            line1=_text(address, "ram:LineOne"),
            line2=_text(address, "ram:LineTwo"),
            city=_text(address, "ram:CityName"),
            postcode=_text(address, "ram:PostcodeCode"),
            country=_text(address, "ram:CountryID"),
            subdivision=_text(address, "ram:CountrySubDivisionName"),
        ),
        vat_id=numbers.get("VA", ""),
        tax_number=numbers.get("FC", ""),
        legal_id=_identifier(element, "ram:SpecifiedLegalOrganization/ram:ID"),
        electronic_address=_identifier(element, "ram:URIUniversalCommunication/ram:URIID"),
        contact=_contact(element.find("ram:DefinedTradeContact", NAMESPACES)),
    )


def _identifier(element: Element, path: str) -> Identifier | None:
    found = element.find(path, NAMESPACES)
    return None if found is None else Identifier(value=found.text or "", scheme=found.get("schemeID", ""))


def _contact(element: Element | None) -> Contact | None:
    if element is None:
        return None
    return Contact(
        name=_text(element, "ram:PersonName"),
        phone=_text(element, "ram:TelephoneUniversalCommunication/ram:CompleteNumber"),
        email=_text(element, "ram:EmailURIUniversalCommunication/ram:URIID"),
    )


def _payment(settlement: Element) -> Payment:
    means = "ram:SpecifiedTradeSettlementPaymentMeans/ram:"
    return Payment(
        terms=_text(settlement, "ram:SpecifiedTradePaymentTerms/ram:Description"),
        iban=_text(settlement, f"{means}PayeePartyCreditorFinancialAccount/ram:IBANID"),
        bic=_text(settlement, f"{means}PayeeSpecifiedCreditorFinancialInstitution/ram:BICID"),
        account_name=_text(settlement, f"{means}PayeePartyCreditorFinancialAccount/ram:AccountName"),
        reference=_text(settlement, "ram:PaymentReference"),
        card_last4=_text(settlement, f"{means}ApplicableTradeSettlementFinancialCard/ram:ID"),
    )


def _adjustment(element: Element, reasons: dict[_Key, Vat], currency: str) -> Adjustment:
    return Adjustment(
        amount_minor=_minor(element, "ram:ActualAmount", currency),
        reason=_text(element, "ram:Reason"),
        vat=reasons[_key(_find(element, "ram:CategoryTradeTax"))],
        is_charge=_text(element, "ram:ChargeIndicator/udt:Indicator") == "true",
    )


def _preceding(settlement: Element) -> Preceding | None:
    element = settlement.find("ram:InvoiceReferencedDocument", NAMESPACES)
    if element is None:
        return None
    issued_on = _required_day(element, "ram:FormattedIssueDateTime")
    return Preceding(number=_text(element, "ram:IssuerAssignedID"), issued_on=issued_on)


def _accounting(settlement: Element, totals: Element, currency: str) -> AccountingCurrency | None:
    """The rate is that of the two stated amounts of VAT: what was used to convert them isn't in the XML."""
    other = _text(settlement, "ram:TaxCurrencyCode")
    if not other:
        return None
    stated = {
        each.get("currencyID"): Decimal(each.text or "") for each in totals.iterfind("ram:TaxTotalAmount", NAMESPACES)
    }
    rate = stated[other] / stated[currency] if stated[currency] else Decimal(0)
    return AccountingCurrency(currency=other, rate=rate, source="")


def _compare(document: Document, root: Element) -> None:
    settlement = _find(root, "rsm:SupplyChainTradeTransaction/ram:ApplicableHeaderTradeSettlement")
    stated = _find(settlement, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    totals, currency = document.totals, document.draft.currency
    items = root.iterfind(".//ram:IncludedSupplyChainTradeLineItem", NAMESPACES)
    path = "ram:SpecifiedLineTradeSettlement/ram:SpecifiedTradeSettlementLineMonetarySummation/ram:LineTotalAmount"
    pairs = [
        *((item, path, minor) for item, minor in zip(items, document.line_minor, strict=True)),
        (stated, "ram:LineTotalAmount", totals.lines_minor),
        (stated, "ram:AllowanceTotalAmount", totals.allowances_minor),
        (stated, "ram:ChargeTotalAmount", totals.charges_minor),
        (stated, "ram:TaxBasisTotalAmount", totals.net_minor),
        (stated, f"ram:TaxTotalAmount[@currencyID='{currency}']", totals.tax_minor),
        (stated, "ram:GrandTotalAmount", totals.gross_minor),
        (stated, "ram:DuePayableAmount", totals.due_minor),
    ]
    for element, name, minor in pairs:
        if _minor(element, name, currency) != minor:
            raise Unprocessable(
                f"{name} says {_text(element, name)}, and {from_minor(minor, currency)} follows from the lines",
                code="amounts_differ",
            )
