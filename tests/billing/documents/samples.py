from dataclasses import replace
from datetime import date
from decimal import Decimal

from galerne.billing.documents.document import (
    AccountingCurrency,
    Address,
    Adjustment,
    Contact,
    Draft,
    Identifier,
    Line,
    Party,
    Payment,
    Period,
    Preceding,
    Vat,
)

NOVEMBER = Period(start=date(2026, 11, 1), end=date(2026, 11, 30))

SELLER = Party(
    name="Galerne SAS",
    address=Address(line1="12 quai de la Fosse", city="Nantes", postcode="44000", country="FR"),
    vat_id="FR40303265045",
    legal_id=Identifier(value="303265045", scheme="0002"),
    electronic_address=Identifier(value="303265045", scheme="0225"),
    contact=Contact(name="Comptabilité", phone="+33 2 40 00 00 00", email="billing@galerne.example"),
    legal_form="SAS au capital de 100 000 €, RCS Nantes 303 265 045",
)
FRENCH = Party(
    name="Banque de l'Erdre SA",
    address=Address(line1="1 place Royale", city="Nantes", postcode="44000", country="FR"),
    vat_id="FR83404833048",
    legal_id=Identifier(value="404833048", scheme="0002"),
    electronic_address=Identifier(value="404833048", scheme="0225"),
)
GERMAN = Party(
    name="Müller & Söhne GmbH",
    address=Address(line1="Große Bleichen 5", line2="3. OG", city="Hamburg", postcode="20354", country="DE"),
    vat_id="DE136695976",
    electronic_address=Identifier(value="rechnung@mueller.example", scheme="EM"),
)
AGENCY = Party(
    name="Bundesamt für Beispiele",
    address=Address(line1="Musterweg 1", city="Berlin", postcode="10115", country="DE"),
    vat_id="DE136695976",
    electronic_address=Identifier(value="poststelle@bfb.example", scheme="EM"),
)
CONSUMER = Party(
    name="Anna Virtanen",
    address=Address(line1="Mannerheimintie 1", city="Helsinki", postcode="00100", country="FI"),
)
AMERICAN = Party(
    name="Acme Inc.",
    address=Address(line1="1 Main St", city="Springfield", postcode="62701", country="US", subdivision="IL"),
)
JAPANESE = Party(
    name="Sample KK",
    address=Address(line1="1-1 Chiyoda", city="Tokyo", postcode="100-0001", country="JP"),
)
TRANSFER = Payment(
    terms="30 days net",
    iban="FR76 3000 6000 0112 3456 7890 189",
    bic="AGRIFRPP",
    account_name="Galerne SAS",
    reference="RF18539007547034",
)

S20 = Vat(category="S", rate=Decimal(20))
S55 = Vat(category="S", rate=Decimal("5.5"))
S255 = Vat(category="S", rate=Decimal("25.5"))
Z0 = Vat(category="Z")
REVERSED = Vat(category="AE", reason_code="VATEX-EU-AE", reason="Autoliquidation : directive 2006/112/CE, art. 196")
EXEMPT = Vat(category="E", reason_code="VATEX-EU-151-1B", reason="Directive 2006/112/EC, Art. 151(1)(b)")
FRANCHISE = Vat(category="E", reason_code="VATEX-FR-FRANCHISE", reason="TVA non applicable, art. 293 B du CGI")
OUTSIDE = Vat(category="O", reason_code="VATEX-EU-O", reason="Not subject to VAT")
EXPORT = Vat(category="G", reason_code="VATEX-EU-G", reason="Export outside the EU")


def tokens(number: str, name: str, quantity: int, price: str, vat: Vat) -> Line:
    return Line(
        id=number,
        name=name,
        quantity=Decimal(quantity),
        price=Decimal(price),
        base_quantity=1_000_000,
        vat=vat,
        period=NOVEMBER,
        item_id=f"sku-{number}",
    )


def draft(vat: Vat = S20, **changes: object) -> Draft:
    plain = Draft(
        kind="invoice",
        number="FR-2026-000123",
        issued_on=date(2026, 12, 1),
        due_on=date(2026, 12, 31),
        supplied_on=date(2026, 11, 30),
        period=NOVEMBER,
        seller=SELLER,
        buyer=FRENCH,
        currency="EUR",
        lines=(
            tokens("1", "brise: input tokens", 123_456_789, "0.40", vat),
            tokens("2", "brise: output tokens", 7_654_321, "1.60", vat),
            Line(id="3", name="Team plan, 12 seats", quantity=Decimal(12), price=Decimal("29.90"), vat=vat),
        ),
        payment=TRANSFER,
        notes=("Usage proof: root 7f3a…",),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def xrechnung() -> Draft:
    return draft(REVERSED, buyer=AGENCY, buyer_reference="991-33333TEST-33", payment=TRANSFER)


CASES: dict[str, Draft] = {
    "domestic": draft(),
    "mixed-rates": draft(lines=(*draft().lines, tokens("4", "books: pages", 1234, "900.5", S55))),
    "zero-rated": draft(Z0),
    "reverse-charge": draft(REVERSED, buyer=GERMAN),
    "oss-consumer": draft(S255, buyer=CONSUMER, payment=Payment(card_last4="4242", terms="Paid by card")),
    "exempt-buyer": draft(EXEMPT, buyer=GERMAN),
    "small-business": draft(FRANCHISE),
    "outside-the-eu": draft(OUTSIDE, buyer=AMERICAN, currency="USD"),
    "export": draft(EXPORT, buyer=AMERICAN),
    "credit-note": draft(
        kind="credit_note",
        number="FR-2026-A0001",
        preceding=Preceding(number="FR-2026-000100", issued_on=date(2026, 11, 1)),
    ),
    "credit-note-reverse-charge": draft(
        REVERSED, kind="credit_note", buyer=GERMAN, preceding=Preceding(number="X-1", issued_on=date(2026, 10, 1))
    ),
    "yen": draft(
        OUTSIDE,
        buyer=JAPANESE,
        currency="JPY",
        lines=(tokens("1", "brise: input tokens", 123_456_789, "61.7", OUTSIDE),),
    ),
    "dinar": draft(OUTSIDE, buyer=AMERICAN, currency="KWD"),
    "dollars-with-vat-in-euros": draft(
        currency="USD", accounting=AccountingCurrency(currency="EUR", rate=Decimal("0.9217"), source="ECB 2026-11-30")
    ),
    "allowances-and-charges": draft(
        adjustments=(
            Adjustment(amount_minor=1500, reason="Volume discount", vat=S20),
            Adjustment(amount_minor=250, reason="Paper copy", vat=S20, is_charge=True),
        )
    ),
    "zero-line": draft(lines=(*draft().lines, tokens("4", "brise: cached input", 0, "0.04", S20))),
    "nothing-due": draft(lines=(tokens("1", "included usage", 500_000, "0", S20),)),
    "negative-line": draft(
        lines=(
            *draft().lines,
            Line(id="4", name="Unused days of Team", quantity=Decimal(-5), price=Decimal("0.97"), vat=S20),
        )
    ),
    "commitment": draft(
        lines=(
            *draft().lines,
            Line(
                id="4",
                name="Commitment: shortfall to EUR 5,000",
                quantity=Decimal(1),
                price=Decimal("4579.57"),
                vat=S20,
            ),
        )
    ),
    "prepaid-and-rounding": draft(paid_minor=10_000, rounding_minor=1),
    "rounding": draft(lines=tuple(tokens(str(n), f"model {n}", 333_333 * n, "0.015", S20) for n in range(1, 8))),
    "three-hundred-lines": draft(
        lines=tuple(tokens(str(n), f"model {n}: output tokens", 1_000_003 * n, "1.234567", S20) for n in range(1, 301))
    ),
    "public-body": xrechnung(),
}
