"""What happens in the demonstration: three customers, what they ask, what their banks say. Pure; a seed, a story."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from xml.sax.saxutils import escape

from galerne.billing.contracts import TermsIn
from galerne.billing.documents.document import Address, Contact, Identifier
from galerne.billing.invoices import BillingProfile, Issuer

MODELS = {"demo-large": ("2", "0.2", "6"), "demo-small": ("0.2", "0.02", "0.6")}
"""Models, and what 1,000,000 tokens of input, cached input and output cost, in euros."""
TOP_UP_NANO = 50 * 10**9
OUR_IBAN = "FR7630006000011234567890189"
FRAME = "Frame agreement"
ISSUER = Issuer(
    id="galerne-fr",
    name="Galerne SAS",
    address=Address(line1="12 quai de la Fosse", city="Nantes", postcode="44000", country="FR"),
    prefix="FR",
    vat_id="FR40303265045",
    legal_id=Identifier(value="303265045", scheme="0002"),
    electronic_address=Identifier(value="billing@galerne.example", scheme="EM"),
    contact=Contact(name="Billing", phone="+33 2 00 00 00 00", email="billing@galerne.example"),
    iban=OUR_IBAN,
    account_name="Galerne SAS",
    one_stop_shop=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """One of the three: its plan, its keys by workspace and cost centre, how it works, and how it pays.

    `requests` a month at first; `growth` more each month; tokens of a request lie between bounds.
    """

    name: str
    plan: str
    keys: Sequence[tuple[str, str]]
    requests: int
    growth: float
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    iban: str
    legal_name: str
    address: Address
    is_business: bool
    vat_id: str = ""
    prepaid: bool = False

    def profile(self, organisation_id: str) -> BillingProfile:
        """To whom its invoices go."""
        return BillingProfile(
            organisation_id=organisation_id,
            issuer_id=ISSUER.id,
            name=self.legal_name,
            address=self.address,
            is_business=self.is_business,
            vat_id=self.vat_id,
            electronic_address=Identifier(value="accounts@customer.example", scheme="EM"),
        )


CUSTOMERS = (
    Customer(
        name="ada",
        plan="developer",
        keys=(("", ""),),
        requests=400,
        growth=0.02,
        input_tokens=(4_000, 60_000),
        output_tokens=(500, 4_000),
        iban="FR1420041010050500013M02606",
        legal_name="Ada Moreau",
        address=Address(line1="3 rue Crebillon", city="Nantes", postcode="44000", country="FR"),
        is_business=False,
        prepaid=True,
    ),
    Customer(
        name="atelier-nord",
        plan="team",
        keys=(("design", "studio"), ("sales", "market")),
        requests=700,
        growth=0.05,
        input_tokens=(2_000, 40_000),
        output_tokens=(300, 3_000),
        iban="DE02120300000000202051",
        legal_name="Atelier Nord GmbH",
        address=Address(line1="Große Bleichen 5", city="Hamburg", postcode="20354", country="DE"),
        is_business=True,
        vat_id="DE136695976",
    ),
    Customer(
        name="banque-de-l-erdre",
        plan="enterprise",
        keys=(("risk", "risk-4711"), ("compliance", "compliance-12"), ("branches", "retail")),
        requests=1200,
        growth=0.06,
        input_tokens=(400_000, 2_400_000),
        output_tokens=(100_000, 700_000),
        iban="FR7610107001011234567890129",
        legal_name="Banque de l'Erdre SA",
        address=Address(line1="1 place Royale", city="Nantes", postcode="44000", country="FR"),
        is_business=True,
        vat_id="FR61954506077",
    ),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: who, with which of its keys, when, and how many tokens of which model."""

    customer: Customer
    key: int
    at: datetime
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    total_ms: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money that a bank books: from whom, how much, and what the payer wrote."""

    name: str
    iban: str
    amount: Decimal
    text: str
    reference: str = ""


def first_months(until: date, count: int) -> list[datetime]:
    """The beginnings of the `count` months before the one that holds `until`, and of that one."""
    number = until.year * 12 + until.month - 1
    return [datetime(each // 12, each % 12 + 1, 1, tzinfo=UTC) for each in range(number - count, number + 1)]


def requests_of(seed: int, month: datetime, number: int, scale: float) -> Iterator[Asked]:
    """The requests of one month, by time; working days from the 3rd to the 28th, more of them in later months."""
    dice = Random(f"{seed}:{month:%Y-%m}")  # noqa: S311  # a story, not a secret
    found: list[Asked] = []
    for customer in CUSTOMERS:
        for _ in range(max(1, round(customer.requests * (1 + customer.growth) ** number * scale))):
            day = dice.randint(2, 27)
            at = month + timedelta(days=day, hours=dice.triangular(6, 20, 11), milliseconds=dice.randint(0, 10**6))
            tokens = dice.randint(*customer.input_tokens)
            cached = int(tokens * dice.choice((0, 0, 0.3, 0.8)))
            model = "demo-small" if dice.random() < 0.3 else "demo-large"
            key = dice.randrange(len(customer.keys))
            made = dice.randint(*customer.output_tokens)
            found.append(Asked(customer, key, at, model, tokens - cached, cached, made, dice.uniform(200, 9000)))
    return iter(sorted(found, key=lambda each: each.at))


def terms_of(start: datetime) -> TermsIn:
    """The bank's contract: a year, prepaid in two instalments, overage at a tenth less than the list."""
    half = start.replace(year=start.year + (start.month > 6), month=(start.month + 5) % 12 + 1)
    parts = [{"due_at": each.isoformat(), "amount": "36000"} for each in (start, half)]
    return TermsIn.model_validate(
        {
            "currency": "EUR",
            "start": start.isoformat(),
            "months": 12,
            "time_zone": "UTC",
            "commitments": [{"id": "base", "kind": "prepaid", "amount": "72000", "instalments": parts}],
            "overage_ppm": 900_000,
            "fee": "500",
            "purchase_order": "BE-2026-041",
            "sla": {"availability": "99.9"},
        }
    )


def statement_xml(name: str, day: date, transfers: Sequence[Transfer]) -> bytes:
    """A bank's statement of that day, CAMT.053 in version 08."""
    entries = "".join(_entry(f"{name}-{number}", day, each) for number, each in enumerate(transfers, 1))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08">'
        f"<BkToCstmrStmt><GrpHdr><MsgId>{name}</MsgId><CreDtTm>{day}T20:00:00Z</CreDtTm></GrpHdr>"
        f"<Stmt><Id>{name}</Id><Acct><Id><IBAN>{OUR_IBAN}</IBAN></Id></Acct>{entries}</Stmt></BkToCstmrStmt></Document>\n"
    ).encode()


def _entry(reference: str, day: date, transfer: Transfer) -> str:
    structured = f"<Strd><CdtrRefInf><Ref>{transfer.reference}</Ref></CdtrRefInf></Strd>" if transfer.reference else ""
    written = f"<Ustrd>{escape(transfer.text)}</Ustrd>" if transfer.text else ""
    sign = "CRDT" if transfer.amount > 0 else "DBIT"
    amount = f'<Amt Ccy="EUR">{abs(transfer.amount):.2f}</Amt><CdtDbtInd>{sign}</CdtDbtInd>'
    return (
        f"<Ntry>{amount}<Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>{day}</Dt></BookgDt><ValDt><Dt>{day}</Dt></ValDt>"
        f"<AcctSvcrRef>{reference}</AcctSvcrRef><NtryDtls><TxDtls>{amount}<RltdPties><Dbtr><Pty><Nm>"
        f"{escape(transfer.name)}</Nm></Pty></Dbtr><DbtrAcct><Id><IBAN>{transfer.iban}</IBAN></Id></DbtrAcct></RltdPties>"
        f"<RmtInf>{written}{structured}</RmtInf></TxDtls></NtryDtls></Ntry>"
    )
