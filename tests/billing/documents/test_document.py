from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.billing.documents.amounts import decimals_of, from_minor, to_minor
from galerne.billing.documents.document import Adjustment, Document, Draft, Line, Vat, compute
from galerne.kernel import Unprocessable
from tests.billing.documents.samples import CASES, EXEMPT, NOVEMBER, OUTSIDE, REVERSED, S20, S55, Z0, draft, tokens

TAXED = [S20, S55, Vat(category="S", rate=Decimal("25.5")), Z0, REVERSED, EXEMPT]


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("1.005", "EUR", 101),
        ("-1.005", "EUR", -101),
        ("1.0049999", "EUR", 100),
        ("0.5", "JPY", 1),
        ("-0.5", "JPY", -1),
        ("1.2345", "KWD", 1230),
        ("1.235", "KWD", 1240),
        ("0", "USD", 0),
    ],
)
def test_an_amount_is_rounded_half_away_from_zero_to_what_the_currency_and_the_standard_have(
    amount: str, currency: str, minor: int
) -> None:
    assert to_minor(Decimal(amount), currency) == minor


def some_draft(lines: list[Line], adjustments: list[Adjustment], currency: str, paid_minor: int) -> Draft:
    return draft(lines=tuple(lines), adjustments=tuple(adjustments), currency=currency, paid_minor=paid_minor)


def drafts() -> st.SearchStrategy[Draft]:
    prices = st.decimals(0, 10**6, places=6)
    quantities = st.integers(-(10**12), 10**12).map(Decimal) | st.decimals(-(10**6), 10**6, places=4)
    lines = st.lists(
        st.builds(
            Line,
            id=st.uuids().map(str),
            name=st.just("x"),
            quantity=quantities,
            price=prices,
            base_quantity=st.sampled_from([1, 7, 1000, 10**6]),
            vat=st.sampled_from(TAXED),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda line: line.id,
    )
    adjustments = st.lists(
        st.builds(
            Adjustment,
            amount_minor=st.integers(0, 10**6).map(lambda n: n * 10),
            reason=st.just("x"),
            vat=st.sampled_from(TAXED),
            is_charge=st.booleans(),
        ),
        max_size=4,
    )
    return st.builds(
        some_draft,
        lines,
        adjustments,
        st.sampled_from(["EUR", "USD", "JPY", "KWD"]),
        st.integers(0, 10**6).map(lambda n: n * 10),
    )


def broken_rules(document: Document) -> list[str]:
    own, totals = document.draft, document.totals
    rules = {
        "BR-CO-10": totals.lines_minor == sum(document.line_minor),
        "BR-CO-11": totals.allowances_minor == sum(a.amount_minor for a in own.adjustments if not a.is_charge),
        "BR-CO-12": totals.charges_minor == sum(a.amount_minor for a in own.adjustments if a.is_charge),
        "BR-CO-13": totals.net_minor == totals.lines_minor - totals.allowances_minor + totals.charges_minor,
        "BR-CO-14": totals.tax_minor == sum(row.tax_minor for row in document.vat),
        "BR-CO-15": totals.gross_minor == totals.net_minor + totals.tax_minor,
        "BR-CO-16": totals.due_minor == totals.gross_minor - totals.paid_minor + totals.rounding_minor,
        "BR-CO-18": len(document.vat) > 0,
        "BR-*-01": len({(row.vat.category, row.vat.rate) for row in document.vat}) == len(document.vat),
        "net": totals.net_minor == sum(row.basis_minor for row in document.vat),
    }
    step = 10 ** max(0, decimals_of(own.currency) - 2)
    for row in document.vat:
        exact = Fraction(row.basis_minor) * Fraction(row.vat.rate) / 100
        rules[f"BR-CO-17 {row.vat.rate}"] = abs(row.tax_minor - exact) * 2 <= step
        mine = zip(own.lines, document.line_minor, strict=True)
        lines = sum(amount for line, amount in mine if line.vat == row.vat)
        signed = [a.amount_minor if a.is_charge else -a.amount_minor for a in own.adjustments if a.vat == row.vat]
        rules[f"BR-S-08 {row.vat.category}"] = row.basis_minor == lines + sum(signed)
    for line, amount in zip(own.lines, document.line_minor, strict=True):
        exact = Fraction(line.quantity) * Fraction(line.price) / line.base_quantity * 10 ** decimals_of(own.currency)
        rules[f"net of {line.id}"] = abs(amount - exact) * 2 <= step
    return [rule for rule, holds in rules.items() if not holds]


@settings(deadline=None)
@given(drafts())
def test_totals_obey_every_rule_whatever_is_sold(own: Draft) -> None:
    assert broken_rules(compute(own)) == []


@settings(deadline=None)
@given(drafts(), st.randoms())
def test_the_order_of_lines_changes_no_total(own: Draft, random: Random) -> None:
    shuffled = list(own.lines)
    random.shuffle(shuffled)
    one, other = compute(own), compute(replace(own, lines=tuple(shuffled)))
    assert (one.vat, one.totals) == (other.vat, other.totals)


def test_a_line_of_many_tokens_is_exact_until_its_one_rounding() -> None:
    document = compute(draft(lines=(tokens("1", "x", 10**15 + 1, "0.000005", S20),)))
    assert document.line_minor == (500000,)


def test_vat_is_stated_in_the_accounting_currency_too() -> None:
    document = compute(CASES["dollars-with-vat-in-euros"])
    assert document.totals.accounting_tax_minor == to_minor(
        from_minor(document.totals.tax_minor, "USD") * Decimal("0.9217"), "EUR"
    )


@pytest.mark.parametrize(
    ("rule", "own"),
    [
        ("BR-02", draft(number=" ")),
        ("BR-16", draft(lines=())),
        ("BR-21", draft(lines=(tokens("1", "a", 1, "1", S20), tokens("1", "b", 1, "1", S20)))),
        ("BR-25", draft(lines=(tokens("1", " ", 1, "1", S20),))),
        ("BR-27", draft(lines=(tokens("1", "a", 1, "-1", S20),))),
        ("base quantity", draft(lines=(replace(tokens("1", "a", 1, "1", S20), base_quantity=0),))),
        ("is negative", draft(adjustments=(Adjustment(amount_minor=-1, reason="x", vat=S20),))),
        ("BR-33", draft(adjustments=(Adjustment(amount_minor=1, reason="", vat=S20),))),
        ("credit note", draft(kind="credit_note")),
        ("BR-29", draft(period=replace(NOVEMBER, end=NOVEMBER.start.replace(year=2025)))),
        ("BR-S-05", draft(Vat(category="S"))),
        ("BR-S-05", draft(Vat(category="AE", rate=Decimal(20), reason="x"))),
        ("BR-E-10", draft(Vat(category="E"))),
        ("BR-O-11", draft(lines=(tokens("1", "a", 1, "1", S20), tokens("2", "b", 1, "1", OUTSIDE)))),
        (
            "two reasons",
            draft(lines=(tokens("1", "a", 1, "1", EXEMPT), tokens("2", "b", 1, "1", replace(EXEMPT, reason="y")))),
        ),
    ],
)
def test_a_draft_that_breaks_a_rule_is_refused_by_its_name(rule: str, own: Draft) -> None:
    with pytest.raises(Unprocessable, match=rule):
        compute(own)
