"""What invoice lines are called, in the languages that invoices are written in. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from galerne.billing.documents.vat import Language
from galerne.billing.rating.rater import LineKey

_CLASSES: Mapping[Language, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "input": "input tokens",
            "cached": "cached input tokens",
            "output": "output tokens",
            "embeddings": "embedded tokens",
        },
        "fr": {
            "input": "jetons en entrée",
            "cached": "jetons en entrée, en cache",
            "output": "jetons en sortie",
            "embeddings": "jetons vectorisés",
        },
        "de": {
            "input": "Eingabe-Token",
            "cached": "Eingabe-Token aus dem Cache",
            "output": "Ausgabe-Token",
            "embeddings": "eingebettete Token",
        },
    }
)
_TEXTS: Mapping[Language, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "paid_by_credit": "Usage paid by credit",
            "covered": "Usage covered by the contract's commitments",
            "contract_usage": "Usage due under the contract",
            "surcharge": "Usage beyond the commitments, surcharge",
            "carried": "Carried over from {period}",
            "credit": "Prepaid credit",
            "credited": "Credit on invoice {number}",
            "terms": "{days} days net",
            "proof": "Usage proof: {size} records, root {root}",
            "batch": "batch",
        },
        "fr": {
            "paid_by_credit": "Consommation réglée par crédit prépayé",
            "covered": "Consommation couverte par les engagements du contrat",
            "contract_usage": "Consommation due au titre du contrat",
            "surcharge": "Consommation au-delà des engagements, supplément",
            "carried": "Report de {period}",
            "credit": "Crédit prépayé",
            "credited": "Avoir sur la facture {number}",
            "terms": "{days} jours net",
            "proof": "Preuve de consommation : {size} enregistrements, racine {root}",
            "batch": "lot",
        },
        "de": {
            "paid_by_credit": "Nutzung, aus Guthaben bezahlt",
            "covered": "Nutzung, durch Vertragszusagen gedeckt",
            "contract_usage": "Nutzung nach Vertrag",
            "surcharge": "Nutzung über die Zusagen hinaus, Aufschlag",
            "carried": "Übertrag aus {period}",
            "credit": "Guthaben",
            "credited": "Gutschrift zur Rechnung {number}",
            "terms": "{days} Tage netto",
            "proof": "Nutzungsnachweis: {size} Einträge, Wurzel {root}",
            "batch": "Stapel",
        },
    }
)


def words(language: Language, what: str, **values: object) -> str:
    """That text in this language."""
    return _TEXTS[language][what].format(**values)


def usage_name(line: LineKey, language: Language) -> str:
    """What a line of usage is called: model, token class, and what is not the usual way of asking for it."""
    name = f"{line.model_id}: {_CLASSES[language].get(line.token_class, line.token_class.replace('_', ' '))}"
    how = [line.service_tier if line.service_tier not in ("", "standard") else "", line.zone]
    return ", ".join([name, *filter(None, how), *([_TEXTS[language]["batch"]] if line.batch else [])])
