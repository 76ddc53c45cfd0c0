"""Reads a bank statement (ISO 20022 CAMT.053, versions 02 and 08) into entries. Pure.

One entry stands for one booking of one payer: a booking of several payments is split into its transactions, unless they
don't say amounts that sum up to it, in the same currency; then it stays whole and names nobody. Versions differ for us
in where a party's name stands and how a status is written.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from xml.etree.ElementTree import Element

from galerne.billing.documents.amounts import decimals_of
from galerne.billing.documents.xml import parse_xml
from galerne.kernel import Unprocessable

_NAMESPACE = re.compile(r"\{urn:iso:std:iso:20022:tech:xsd:camt\.053\.001\.(02|08)\}Document")

_NOTHING = Element("TxDtls")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEntry:
    """What came into or went out of an account: `amount_minor` is negative for what went out.

    `key` is the bank's own reference, made unique within the statement: the same file read twice gives the same keys.
    `creditor_reference` is the structured one (RF… of ISO 11649, or a national one), `remittance` the free text.
    `reversal` tells a booking that takes back another.
    """

    key: str
    account_iban: str
    currency: str
    amount_minor: int
    booked_on: date
    valued_on: date
    debtor_name: str
    debtor_iban: str
    creditor_reference: str
    end_to_end_id: str
    remittance: str
    reversal: bool


def read_camt053(xml: bytes) -> tuple[StatementEntry, ...]:
    """The booked entries of every statement in the file, in its order; those that are only pending are left out.

    Raises `Unprocessable` for what is no such file, for a booking without amount or date, and for one that comes twice.
    """
    root = parse_xml(xml)
    named = _NAMESPACE.fullmatch(root.tag)
    if named is None:
        raise Unprocessable(f"This is no CAMT.053 of version 02 or 08, but {root.tag}", code="invalid_statement")
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    try:
        entries = tuple(entry for statement in root.iterfind("BkToCstmrStmt/Stmt") for entry in _statement(statement))
    except (InvalidOperation, ValueError) as broken:
        raise Unprocessable(
            f"The statement says {broken!r}, which is no such value", code="invalid_statement"
        ) from None
    keys = [entry.key for entry in entries]
    if len(set(keys)) < len(keys):
        raise Unprocessable("The file has the same booking twice", code="invalid_statement")
    return entries


def _statement(statement: Element) -> Iterator[StatementEntry]:
    seen: dict[str, int] = {}
    for position, booking in enumerate(statement.iterfind("Ntry"), 1):
        status = _text(booking, "Sts/Cd") or _text(booking, "Sts")
        if status.strip() not in ("BOOK", ""):
            continue
        reference = _text(booking, "AcctSvcrRef") or _text(booking, "NtryRef") or f"#{position}"
        seen[reference] = seen.get(reference, 0) + 1
        occurrence = f"/{seen[reference]}" if seen[reference] > 1 else ""
        yield from _booking(statement, booking, f"{_text(statement, 'Id')}/{reference}{occurrence}")


def _booking(statement: Element, booking: Element, key: str) -> Iterator[StatementEntry]:
    transactions = booking.findall("NtryDtls/TxDtls")
    whole = _amount(booking)
    if len(transactions) < 2:
        yield _entry(statement, booking, transactions[0] if transactions else _NOTHING, (key, whole))
        return
    try:
        amounts = [_amount(details, booking) for details in transactions]
    except Unprocessable:
        amounts = []
    if sum(minor for _, minor in amounts) != whole[1] or {currency for currency, _ in amounts} != {whole[0]}:
        yield _entry(statement, booking, _NOTHING, (key, whole))
        return
    for number, (details, amount) in enumerate(zip(transactions, amounts, strict=True), 1):
        yield _entry(statement, booking, details, (f"{key}:{number}", amount))


def _entry(
    statement: Element, booking: Element, details: Element, keyed: tuple[str, tuple[str, int]]
) -> StatementEntry:
    key, (currency, amount_minor) = keyed
    remittance = [each.text or "" for each in details.iterfind("RmtInf/Ustrd")]
    booked_on = _day(booking, "BookgDt")
    return StatementEntry(
        key=key,
        account_iban=_text(statement, "Acct/Id/IBAN"),
        currency=currency,
        amount_minor=amount_minor,
        booked_on=booked_on,
        valued_on=_day(booking, "ValDt", booked_on),
        debtor_name=_text(details, "RltdPties/Dbtr/Pty/Nm") or _text(details, "RltdPties/Dbtr/Nm"),
        debtor_iban=_text(details, "RltdPties/DbtrAcct/Id/IBAN"),
        creditor_reference=_text(details, "RmtInf/Strd/CdtrRefInf/Ref"),
        end_to_end_id=_text(details, "Refs/EndToEndId").removeprefix("NOTPROVIDED"),
        remittance=" ".join(" ".join(remittance).split()) or _text(booking, "AddtlNtryInf"),
        reversal=_text(booking, "RvslInd") == "true",
    )


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _amount(element: Element, booking: Element | None = None) -> tuple[str, int]:
    """Currency and signed minor units; a transaction's amount stands in one of two places, its sign may be missing."""
    amount = element.find("Amt")
    if amount is None:
        amount = element.find("AmtDtls/TxAmt/Amt")
    sign = _text(element, "CdtDbtInd") or ("" if booking is None else _text(booking, "CdtDbtInd"))
    if amount is None or sign not in ("CRDT", "DBIT"):
        raise Unprocessable("A booking has no amount, or doesn't say whether it came in", code="invalid_statement")
    currency = amount.get("Ccy", "")
    minor = Decimal((amount.text or "").strip()).scaleb(decimals_of(currency))
    if not re.fullmatch("[A-Z]{3}", currency) or not minor.is_finite() or minor < 0 or minor != int(minor):
        raise Unprocessable(f"{amount.text} {currency} is no amount of that currency", code="invalid_statement")
    return currency, int(minor) if sign == "CRDT" else -int(minor)


def _day(booking: Element, name: str, otherwise: date | None = None) -> date:
    text = (_text(booking, f"{name}/Dt") or _text(booking, f"{name}/DtTm"))[:10]
    if not text and otherwise:
        return otherwise
    return date.fromisoformat(text)
