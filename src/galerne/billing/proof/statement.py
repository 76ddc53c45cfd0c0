"""The invoice in a proof, as it was frozen, and its arithmetic: lines from requests and prices, tax, totals. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from galerne.billing.documents.document import Document, Draft, Line, Totals, VatSubtotal, compute
from galerne.billing.proof.findings import Findings
from galerne.billing.proof.form import UsageLine
from galerne.billing.proof.leaves import Amounts, LineName
from galerne.kernel.errors import GalerneError
from galerne.ledger.amounts import half_even

_NANO = 10**9
_MOST_DIGITS = 60
_ITEM_ID = 40  # characters of a rate's id that an invoice has room for


class Frozen(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a final invoice, as its text says: the document, and the root over the usage that it bills."""

    invoice_id: str
    organisation_id: str
    period: str | None
    language: str
    document: Document
    usage_root: str
    usage_size: int
    version: int
    flavour: str = "factur-x"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be paid, so that it never got a number."""
        return self.document.totals.gross_minor <= 0


class Billed(NamedTuple):
    """A line of the invoice that requests are summed in."""

    id: str
    name: LineName
    quantity: int
    unit_nano: Fraction
    exact_nano: int

    @property
    def requests_name(self) -> LineName:
        """What its requests call it: they are rated on the first tier of volume, whatever the month comes to."""
        return replace(self.name, tier_index=0)

    @property
    def nano(self) -> int:
        """What its quantity costs at its price, rounded once, half to even."""
        return self.at(self.unit_nano)

    def at(self, unit_nano: Fraction) -> int:
        """What its quantity costs at another price."""
        exact = self.quantity * unit_nano
        return half_even(exact.numerator, exact.denominator)


class Statement(NamedTuple):
    """An invoice, and which of its lines bill usage."""

    frozen: Frozen
    billed: list[Billed]

    @property
    def draft(self) -> Draft:
        """What somebody decided; all amounts follow."""
        return self.frozen.document.draft


def parse_statement(
    invoice: Mapping[str, Any], lines: Iterable[UsageLine | None], findings: Findings
) -> Statement | None:
    """The invoice of a proof; None and a finding where it is none that could be recomputed."""
    try:
        frozen = msgspec.convert(invoice, Frozen)
    except (msgspec.ValidationError, ValueError, ArithmeticError) as problem:
        findings.add("format", "invoice", "an invoice as the format says", str(problem)[:200])
        return None
    draft, shown = frozen.document.draft, list(lines)
    if any(not _reasonable(number) for number in _decimals(draft)):
        findings.add("format", "invoice", f"numbers of at most {_MOST_DIGITS} digits", "others")
        return None
    findings.same("line", "number of lines", len(draft.lines), len(shown))
    try:
        compute(draft)
    except (GalerneError, ValueError, ArithmeticError) as problem:
        findings.add("total", "invoice", "a document that obeys EN 16931", getattr(problem, "message", str(problem)))
        return None
    return Statement(frozen, _billed(draft, shown, findings))


def prices_of(statement: Statement) -> dict[LineName, Fraction | None]:
    """What a unit costs a request on each line, exact; None where the invoice does not say it.

    Requests are rated at the first tier's price; what volume changes is on lines of further tiers.
    """
    prices: dict[LineName, Fraction | None] = {}
    for line in statement.billed:
        if line.name.tier_index == 0:
            prices[line.name] = line.unit_nano
        else:
            prices.setdefault(line.requests_name)
    return prices


def check_sums(statement: Statement, sums: Mapping[LineName, Amounts], findings: Findings) -> None:
    """Compare the lines with what requests come to on each."""
    prices = prices_of(statement)
    by_name: dict[LineName, list[Billed]] = {name: [] for name in sums}
    for line in statement.billed:
        by_name.setdefault(line.requests_name, []).append(line)
    for name in sorted(by_name):
        lines, found, first = by_name[name], sums.get(name, Amounts(0, 0)), prices.get(name)
        where = f"line {' and '.join(line.id for line in lines) or 'none'} ({name.text})"
        findings.same("line", f"{where}, quantity", found.quantity, sum(line.quantity for line in lines))
        if first is not None:
            volume = sum(line.nano - line.at(first) for line in lines)
            exact = sum(line.exact_nano for line in lines)
            findings.same("line", f"{where}, nano-units of its requests", found.nano + volume, exact)


def check_amounts(statement: Statement, findings: Findings) -> None:
    """Compare what the invoice says with what follows from its lines: amounts, tax, totals."""
    follows, said = compute(statement.draft), statement.frozen.document
    for line, expected, found in zip(follows.draft.lines, follows.line_minor, said.line_minor, strict=False):
        findings.same("line", f"line {line.id} ({line.name[:40]}), amount in minor units", expected, found)
    findings.same("line", "number of amounts", len(follows.line_minor), len(said.line_minor))
    _check_vat(follows.vat, said.vat, findings)
    for name in Totals.__dataclass_fields__:
        findings.same("total", name, getattr(follows.totals, name), getattr(said.totals, name))


def _check_vat(follows: tuple[VatSubtotal, ...], said: tuple[VatSubtotal, ...], findings: Findings) -> None:
    findings.same("vat", "number of rates", len(follows), len(said))
    for expected, found in zip(follows, said, strict=False):
        where = f"category {expected.vat.category} at {expected.vat.rate} %"
        findings.same("vat", f"{where}, treatment", expected.vat, found.vat)
        findings.same("vat", f"{where}, basis in minor units", expected.basis_minor, found.basis_minor)
        findings.same("vat", f"{where}, tax in minor units", expected.tax_minor, found.tax_minor)


def _billed(draft: Draft, shown: Iterable[UsageLine | None], findings: Findings) -> list[Billed]:
    billed: list[Billed] = []
    for line, usage in zip(draft.lines, shown, strict=False):
        if usage is None:
            continue
        where = f"line {line.id} ({line.name[:40]})"
        findings.same("price", f"{where}, rate", line.item_id, usage.line.rate_id[:_ITEM_ID])
        quantity = int(line.quantity)
        findings.same("line", f"{where}, whole units", line.quantity, quantity)
        billed.append(Billed(line.id, usage.line, quantity, _unit_nano(line), usage.exact_nano))
    return billed


def _unit_nano(line: Line) -> Fraction:
    return Fraction(line.price) * _NANO / line.base_quantity


def _decimals(draft: Draft) -> list[Decimal]:
    numbers = [number for line in draft.lines for number in (line.quantity, line.price, line.vat.rate)]
    numbers += [adjustment.vat.rate for adjustment in draft.adjustments]
    return [*numbers, *([draft.accounting.rate] if draft.accounting else [])]


def _reasonable(number: Decimal) -> bool:
    # Before anything is computed: 1e999999999 has one digit, and as an integer fills a machine.
    if not number.is_finite():
        return False
    _, digits, exponent = number.as_tuple()
    return len(digits) <= _MOST_DIGITS and isinstance(exponent, int) and abs(exponent) <= _MOST_DIGITS
