"""The words of a printed invoice and how numbers and dates are written, in English, French and German. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from types import MappingProxyType

from galerne.billing.documents.amounts import from_minor
from galerne.billing.documents.vat import Language

LANGUAGES: tuple[Language, ...] = ("en", "fr", "de")

_THIN = "\u202f"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Locale:
    """How a language writes numbers: what stands between thousands, and before decimals."""

    language: Language
    thousands: str
    point: str


LOCALES: Mapping[Language, Locale] = MappingProxyType(
    {"en": Locale("en", ",", "."), "fr": Locale("fr", _THIN, ","), "de": Locale("de", ".", ",")}
)

_TABLE = """
invoice            | Invoice                   | Facture                        | Rechnung
credit_note        | Credit note               | Avoir                          | Gutschrift (Rechnungskorrektur)
seller             | From                      | Vendeur                        | Verkäufer
buyer              | To                        | Client                         | Kunde
number             | Number                    | Numéro                         | Nummer
issued             | Issued                    | Date d'émission                | Rechnungsdatum
due                | Due                       | Échéance                       | Fällig am
supplied           | Supplied                  | Date de prestation             | Leistungsdatum
period             | Period                    | Période                        | Leistungszeitraum
corrects           | Corrects                  | Rectifie                       | Korrigiert
reference          | Your reference            | Votre référence                | Ihre Referenz
order              | Order                     | Commande                       | Bestellung
contract           | Contract                  | Contrat                        | Vertrag
vat_id             | VAT ID                    | N° TVA                         | USt-IdNr.
tax_number         | Tax number                | N° fiscal                      | Steuernummer
registration       | Registration              | N° d'immatriculation           | Registernummer
item               | #                         | N°                             | Pos.
description        | Description               | Désignation                    | Bezeichnung
quantity           | Quantity                  | Quantité                       | Menge
price              | Unit price                | Prix unitaire                  | Einzelpreis
vat                | VAT                       | TVA                            | USt.
net                | Net                       | Montant HT                     | Netto
basis              | Taxable amount            | Base HT                        | Bemessung
tax                | VAT                       | TVA                            | Steuer
lines_total        | Sum of lines              | Total des lignes               | Summe der Positionen
net_total          | Total without VAT         | Total HT                       | Gesamt netto
tax_total          | VAT                       | Total TVA                      | Umsatzsteuer
gross_total        | Total with VAT            | Total TTC                      | Gesamt brutto
paid               | Already paid              | Déjà payé                      | Bereits bezahlt
rounding           | Rounding                  | Arrondi                        | Rundung
due_total          | Amount due                | Net à payer                    | Zahlbetrag
accounting_tax     | VAT in                    | TVA en                         | USt. in
payment            | Payment                   | Paiement                       | Zahlung
terms              | Terms                     | Conditions                     | Bedingungen
account            | Account                   | Compte                         | Konto
payment_reference  | Reference                 | Référence                      | Verwendungszweck
card               | Card ending in            | Carte se terminant par         | Karte endet auf
page               | Page                      | Page                           | Seite
per                | per                       | pour                           | je
S                  | Standard rate             | Taux normal                    | Regelsteuersatz
Z                  | Zero rate                 | Taux zéro                      | Nullsatz
E                  | Exempt                    | Exonéré                        | Steuerfrei
AE                 | Reverse charge            | Autoliquidation                | Reverse-Charge
K                  | Intra-Community supply    | Livraison intracommunautaire   | Innergemeinschaftliche Lieferung
G                  | Export                    | Exportation                    | Ausfuhr
O                  | Outside the scope of VAT  | Hors champ de la TVA           | Nicht steuerbar
"""


def _parsed() -> dict[Language, dict[str, str]]:
    rows = [[cell.strip() for cell in row.split("|")] for row in _TABLE.strip().splitlines()]
    return {language: {row[0]: row[column] for row in rows} for column, language in enumerate(LANGUAGES, 1)}


WORDS: Mapping[Language, Mapping[str, str]] = MappingProxyType(_parsed())


def written_number(value: Decimal, language: Language) -> str:
    """The number as this language writes it, with the decimals that it has: 1234.50 is 1 234,50 in French."""
    locale = LOCALES[language]
    whole, _, decimals = format(abs(value), ",f").partition(".")
    sign = "\u2212" if value < 0 else ""
    return sign + whole.replace(",", locale.thousands) + (locale.point + decimals if decimals else "")


def written_amount(minor: int, currency: str, language: Language) -> str:
    """An amount with the currency's decimals, without its name."""
    return written_number(from_minor(minor, currency), language)


def written_day(day: date, language: Language) -> str:
    """30 Nov 2026, 30/11/2026, 30.11.2026."""
    if language == "en":
        return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"
    return f"{day:%d/%m/%Y}" if language == "fr" else f"{day:%d.%m.%Y}"
