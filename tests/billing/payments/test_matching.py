from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.billing.documents.creditor_reference import creditor_reference, is_creditor_reference
from galerne.billing.payments.camt053 import StatementEntry
from galerne.billing.payments.matching import (
    OpenInvoice,
    match_payments,
)

PAYER = "FR1420041010050500013M02606"


def invoice(number: str, due_minor: int = 10_000, currency: str = "EUR", payer: str = "") -> OpenInvoice:
    payers = frozenset({payer} if payer else ())
    reference = creditor_reference(number)
    return OpenInvoice(
        id=f"id-{number}",
        number=number,
        currency=currency,
        due_minor=due_minor,
        creditor_reference=reference,
        payer_ibans=payers,
    )


def paid(amount_minor: int, remittance: str = "", reference: str = "", **changes: object) -> StatementEntry:
    fields: dict[str, object] = {
        "key": "k",
        "account_iban": "x",
        "currency": "EUR",
        "amount_minor": amount_minor,
        "booked_on": date(2026, 12, 9),
        "valued_on": date(2026, 12, 9),
        "debtor_name": "x",
        "debtor_iban": PAYER,
        "creditor_reference": reference,
        "end_to_end_id": "",
        "remittance": remittance,
        "reversal": False,
    }
    return StatementEntry(**(fields | changes))  # type: ignore[arg-type]


OPEN = (invoice("FR-2026-000001"), invoice("FR-2026-000012", 25_00), invoice("FR-2026-000123", 504_52))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (paid(10_000, reference=creditor_reference("FR-2026-000001")), "exact creditor_reference FR-2026-000001 0"),
        (paid(10_000, "pays " + creditor_reference("FR-2026-000001")), "exact creditor_reference FR-2026-000001 0"),
        (paid(50452, "Facture FR-2026- 000123"), "exact number FR-2026-000123 0"),
        (paid(50452, "fr2026000123 merci"), "exact number FR-2026-000123 0"),
        (paid(50452, end_to_end_id="FR-2026-000123"), "exact number FR-2026-000123 0"),
        (paid(50000, "FR-2026-000123"), "partial number FR-2026-000123 -452"),
        (paid(60000, "FR-2026-000123"), "over number FR-2026-000123 9548"),
        (paid(52952, "FR-2026-000012 + FR-2026-000123"), "exact number FR-2026-000012,FR-2026-000123 0"),
        (paid(50000, "FR-2026-000012 + FR-2026-000123"), "ambiguous number FR-2026-000012,FR-2026-000123 -2952"),
        (paid(10_000, "FR-2026-0000011"), "unmatched   0"),
        (paid(10_000, "XFR-2026-000001"), "unmatched   0"),
        (paid(10_000, "nothing said"), "unmatched   0"),
        (paid(50452, "FR-2026-000123", currency="USD"), "unmatched   0"),
        (paid(-50452, "FR-2026-000123"), "unmatched   0"),
        (paid(50452, "FR-2026-000123", reversal=True), "unmatched   0"),
    ],
)
def test_a_payment_is_matched_by_reference_number_and_amount(entry: StatementEntry, expected: str) -> None:
    (match,) = match_payments([entry], OPEN)
    numbers = ",".join(each.removeprefix("id-") for each in match.invoice_ids)
    assert f"{match.outcome} {match.ground} {numbers} {match.rest_minor}" == expected


def test_a_known_payer_of_the_very_amount_is_matched_only_when_one_invoice_fits() -> None:
    one, two = invoice("A-1", 700, payer=PAYER), invoice("A-2", 700, payer=PAYER)
    assert match_payments([paid(700)], [one])[0].outcome == "exact"
    assert match_payments([paid(700)], [one])[0].ground == "amount_and_payer"
    assert match_payments([paid(700)], [one, two])[0].outcome == "ambiguous"
    assert match_payments([paid(700, debtor_iban="other")], [one])[0].outcome == "unmatched"


def test_an_invoice_paid_in_parts_is_exact_with_the_last_and_unmatched_after() -> None:
    told = match_payments([paid(4_000, "A-1"), paid(6_000, "A-1"), paid(1, "A-1")], [invoice("A-1", 10_000)])
    assert [match.outcome for match in told] == ["partial", "exact", "unmatched"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 500), st.sampled_from(["A-1", "A-2", "A-1 A-2", ""])), max_size=30))
def test_no_invoice_is_paid_more_than_once_whatever_comes_in(payments: list[tuple[int, str]]) -> None:
    entries = [paid(amount, text) for amount, text in payments]
    matches = match_payments(entries, [invoice("A-1", 300), invoice("A-2", 400)])
    assert [match.entry for match in matches] == entries
    booked = [match for match in matches if match.outcome in ("exact", "partial", "over")]
    applied = sum(match.entry.amount_minor - max(0, match.rest_minor) for match in booked)
    assert applied <= 700
    for number in ("id-A-1", "id-A-2"):
        assert len([m for m in booked if number in m.invoice_ids and m.rest_minor >= 0]) <= 1


@settings(deadline=None)
@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=20), st.integers(0, 9))
def test_a_reference_made_of_a_number_has_right_check_digits_and_no_slipped_digit_passes(
    number: str, digit: int
) -> None:
    reference = creditor_reference(f"{number}{digit}")
    assert is_creditor_reference(reference)
    slipped = f"{reference[:-1]}{(digit + 1) % 10}"
    assert not is_creditor_reference(slipped)


@pytest.mark.parametrize(
    ("value", "valid"), [("RF18 5390 0754 7034", True), ("RF19539007547034", False), ("", False), ("RF18", False)]
)
def test_a_creditor_reference_is_checked(value: str, valid: bool) -> None:
    assert is_creditor_reference(value) == valid


def test_a_number_too_long_for_a_reference_has_none() -> None:
    assert creditor_reference("X" * 22) == ""
