from datetime import date
from pathlib import Path

import pytest

from galerne.billing.payments.camt053 import StatementEntry, read_camt053
from galerne.kernel import Unprocessable

GOLDEN = Path(__file__).parent / "golden"
OLD = (GOLDEN / "version-02.xml").read_bytes()
NEW = (GOLDEN / "version-08.xml").read_bytes()
NAMESPACE = b"urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"


def test_version_02_is_read_with_a_batch_split_and_pending_left_out() -> None:
    entries = read_camt053(OLD)
    assert entries[0] == StatementEntry(
        key="2026-240/B-1",
        account_iban="FR7630006000011234567890189",
        currency="EUR",
        amount_minor=50452,
        booked_on=date(2026, 12, 9),
        valued_on=date(2026, 12, 10),
        debtor_name="Banque de l'Erdre SA",
        debtor_iban="FR1420041010050500013M02606",
        creditor_reference="",
        end_to_end_id="",
        remittance="Facture FR-2026- 000123",
        reversal=False,
    )
    told = [(entry.key, entry.amount_minor, entry.debtor_name, entry.creditor_reference) for entry in entries[1:]]
    assert told == [
        ("2026-240/B-2:1", 1000, "One", "RF18539007547034"),
        ("2026-240/B-2:2", 2000, "Two", ""),
        ("2026-240/B-3", -1234, "", ""),
    ]
    assert entries[3].valued_on == entries[3].booked_on
    assert entries[3].remittance == "Account fee"


def test_version_08_is_read_with_a_reversal_and_a_batch_in_another_currency_kept_whole() -> None:
    entries = read_camt053(NEW)
    told = [(entry.key, entry.currency, entry.amount_minor, entry.reversal) for entry in entries]
    assert told == [
        ("2026-241/X-1", "EUR", 42043, False),
        ("2026-241/X-1/2", "EUR", -42043, True),
        ("2026-241/#3", "JPY", 7618, False),
    ]
    assert entries[0].debtor_name == "Müller & Söhne GmbH"
    assert entries[0].creditor_reference == "RF18 5390 0754 7034"
    assert entries[0].end_to_end_id == "E2E-77"
    assert entries[0].booked_on == date(2026, 12, 10)


def test_the_same_file_read_twice_gives_the_same_keys() -> None:
    assert [entry.key for entry in read_camt053(OLD)] == [entry.key for entry in read_camt053(OLD)]


@pytest.mark.parametrize(
    ("code", "xml"),
    [
        ("invalid_xml", b"no"),
        ("invalid_xml", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + OLD.partition(b"\n")[2]),
        ("invalid_statement", OLD.replace(b"camt.053.001.02", b"camt.053.001.99")),
        ("invalid_statement", OLD.replace(b"504.52", b"504.521")),
        ("invalid_statement", OLD.replace(b"504.52", b"-504.52")),
        ("invalid_statement", OLD.replace(b"504.52", b"NaN")),
        ("invalid_statement", OLD.replace(b"504.52", b"much")),
        ("invalid_statement", OLD.replace(b"<BookgDt><Dt>2026-12-09</Dt></BookgDt>", b"")),
        ("invalid_statement", OLD.replace(b"<CdtDbtInd>CRDT</CdtDbtInd>", b"")),
        (
            "invalid_statement",
            OLD.replace(b"<Stmt>", b"<Stmt/><Stmt>").replace(
                b"</Stmt>", b"</Stmt>" + OLD[OLD.index(b"<Stmt>") : OLD.index(b"</Stmt>") + 7], 1
            ),
        ),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_whole(code: str, xml: bytes) -> None:
    with pytest.raises(Unprocessable) as refused:
        read_camt053(xml)
    assert refused.value.code == code
