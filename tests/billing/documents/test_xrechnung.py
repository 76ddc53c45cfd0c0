from dataclasses import replace

import pytest

from galerne.billing.documents.document import Contact, Draft, Payment, compute
from galerne.billing.documents.xrechnung import is_leitweg_id, xrechnung_faults
from tests.billing.documents.samples import AGENCY, SELLER, TRANSFER, xrechnung

CONTACT = Contact(name="A", phone="+33 2 40", email="a@b.example")


def test_the_sample_for_a_public_body_breaks_no_german_rule() -> None:
    assert xrechnung_faults(compute(xrechnung())) == ()


@pytest.mark.parametrize(
    ("rule", "own"),
    [
        ("BR-DE-1", replace(xrechnung(), payment=Payment())),
        ("BR-DE-2", replace(xrechnung(), seller=replace(SELLER, contact=None))),
        ("BR-DE-3", replace(xrechnung(), seller=replace(SELLER, address=replace(SELLER.address, city="")))),
        ("BR-DE-4", replace(xrechnung(), seller=replace(SELLER, address=replace(SELLER.address, postcode="")))),
        ("BR-DE-5", replace(xrechnung(), seller=replace(SELLER, contact=replace(CONTACT, name="")))),
        ("BR-DE-6", replace(xrechnung(), seller=replace(SELLER, contact=replace(CONTACT, phone="")))),
        ("BR-DE-7", replace(xrechnung(), seller=replace(SELLER, contact=replace(CONTACT, email="")))),
        ("BR-DE-8", replace(xrechnung(), buyer=replace(AGENCY, address=replace(AGENCY.address, city="")))),
        ("BR-DE-9", replace(xrechnung(), buyer=replace(AGENCY, address=replace(AGENCY.address, postcode="")))),
        ("BR-DE-15", replace(xrechnung(), buyer_reference="")),
        ("BR-DE-16", replace(xrechnung(), seller=replace(SELLER, vat_id=""))),
        ("BR-DE-19", replace(xrechnung(), payment=replace(TRANSFER, iban="FR76 3000"))),
        ("BR-DE-27", replace(xrechnung(), seller=replace(SELLER, contact=replace(CONTACT, phone="12")))),
        ("BR-DE-28", replace(xrechnung(), seller=replace(SELLER, contact=replace(CONTACT, email="a@b")))),
        ("PEPPOL-EN16931-R010/R020", replace(xrechnung(), buyer=replace(AGENCY, electronic_address=None))),
    ],
)
def test_what_germany_asks_for_on_top_is_found_missing_by_its_rule(rule: str, own: Draft) -> None:
    severity = {finding.rule: finding.severity for finding in xrechnung_faults(compute(own))}
    assert severity[rule] == ("warning" if rule in ("BR-DE-19", "BR-DE-27", "BR-DE-28") else "fatal")


@pytest.mark.parametrize(
    ("value", "valid"),
    [("04011000-12345-34", False), ("04011000-1234512345-06", True), ("991-33333TEST-33", True), ("4-1", False)],
)
def test_a_leitweg_id_has_a_form_and_check_digits(value: str, valid: bool) -> None:
    assert is_leitweg_id(value) == valid
