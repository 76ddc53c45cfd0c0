import importlib
from dataclasses import replace
from typing import Any

import pytest

from galerne.billing.documents.cii import Flavour, to_cii
from galerne.billing.documents.cii_reader import from_cii
from galerne.billing.documents.document import Document, compute
from galerne.billing.documents.validation import Validator
from galerne.kernel import Unprocessable
from tests.billing.documents.samples import CASES, TRANSFER

DOMESTIC = to_cii(compute(CASES["domestic"]))
BROKEN = [
    ("BR-CO-15", b"<ram:GrandTotalAmount>", b"<ram:GrandTotalAmount>1"),
    ("BR-CO-17", b"<ram:RateApplicablePercent>20<", b"<ram:RateApplicablePercent>19<"),
    ("BR-CO-10", b"<ram:LineTotalAmount>49.38<", b"<ram:LineTotalAmount>49.39<"),
    ("BR-02", b"<ram:ID>FR-2026-000123</ram:ID>", b"<ram:ID></ram:ID>"),
    ("BR-06", b"<ram:Name>Galerne SAS</ram:Name>", b""),
    ("FX-SCH-A-000613", b'unitCode="C62"', b'unitCode="QQQ"'),
    ("XSD", b"<ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode>", b""),
]


def flavour(case: str) -> Flavour:
    return "xrechnung" if case == "public-body" else "factur-x"


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_document_passes_the_schema_and_the_schematron(case: str, validator: Validator) -> None:
    assert validator.check(to_cii(compute(CASES[case]), flavour(case))) == ()


@pytest.mark.parametrize("case", [case for case in CASES if flavour(case) == "factur-x"])
def test_factur_x_itself_recognises_it_and_finds_it_valid(case: str) -> None:
    library: Any = importlib.import_module("facturx")
    lxml: Any = importlib.import_module("lxml.etree")
    xml = to_cii(compute(CASES[case]))
    assert library.get_level(lxml.fromstring(xml)) == "en16931"
    assert library.xml_check_xsd(xml, flavor="factur-x", level="en16931")


@pytest.mark.parametrize(("rule", "good", "bad"), BROKEN, ids=[rule for rule, _, _ in BROKEN])
def test_a_document_broken_on_purpose_is_found_by_the_rule_s_name(
    rule: str, good: bytes, bad: bytes, validator: Validator
) -> None:
    assert good in DOMESTIC
    found = validator.check(DOMESTIC.replace(good, bad))
    named = [finding for finding in found if finding.rule == rule]
    assert named
    assert named[0].is_fatal
    assert named[0].location
    assert named[0].text


def comparable(document: Document) -> Document:
    """Without what XML doesn't carry: VAT ids outside the scope, the source of a rate, spaces in an IBAN."""
    own = document.draft
    if any(row.vat.category == "O" for row in document.vat):
        own = replace(own, seller=replace(own.seller, vat_id=""), buyer=replace(own.buyer, vat_id=""))
    own = replace(own, payment=replace(own.payment, iban=own.payment.iban.replace(" ", "")), accounting=None)
    return replace(document, draft=own)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_reads_back_as_the_same_document(case: str) -> None:
    document = compute(CASES[case])
    assert comparable(from_cii(to_cii(document, flavour(case)))) == comparable(document)
    assert to_cii(from_cii(to_cii(document)))[:200] == to_cii(document)[:200]


def test_the_same_document_is_the_same_bytes() -> None:
    assert to_cii(compute(CASES["domestic"])) == DOMESTIC


@pytest.mark.parametrize(
    ("code", "xml"),
    [
        ("amounts_differ", DOMESTIC.replace(b"<ram:GrandTotalAmount>", b"<ram:GrandTotalAmount>1")),
        ("amounts_differ", DOMESTIC.replace(b"<ram:LineTotalAmount>49.38<", b"<ram:LineTotalAmount>49.39<")),
        ("invalid_xml", DOMESTIC.replace(b"20261201", b"2026-12-01")),
        ("invalid_xml", DOMESTIC.replace(b"<ram:TypeCode>380<", b"<ram:TypeCode>999<")),
        ("invalid_xml", DOMESTIC.replace(b"SellerTradeParty", b"SomeTradeParty")),
        ("invalid_xml", DOMESTIC.replace(b"<ram:ChargeAmount>0.4<", b"<ram:ChargeAmount>dear<")),
        ("invalid_xml", b"%PDF-1.7"),
        ("invalid_xml", b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'),
    ],
)
def test_xml_that_says_something_else_is_refused(code: str, xml: bytes) -> None:
    with pytest.raises(Unprocessable) as refused:
        from_cii(xml)
    assert refused.value.code == code


def test_an_iban_is_written_without_spaces() -> None:
    assert TRANSFER.iban.replace(" ", "").encode() in DOMESTIC
