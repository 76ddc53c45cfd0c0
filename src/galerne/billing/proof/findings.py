"""What a verifier found to be wrong: which rule, where, what should be there and what is. Pure."""

from dataclasses import dataclass, field

MOST = 100
"""How many findings are kept; there may be more."""

RULES = {
    "format": "the file is what its format says",
    "complete": "the file has all that the invoice is made of",
    "checkpoint": "a checkpoint signed with a key that you trust covers all",
    "finalised": "the invoice is the one that the journal says was issued",
    "order": "requests come in the order of their ids, each once",
    "owner": "a request was this customer's",
    "period": "a request belongs to this invoice's period",
    "included": "what is shown of the journal is in it",
    "tokens": "what is billed of a request is what was counted when it ended",
    "price": "a request costs what its lines' prices say",
    "line": "a line is its requests' sum at its price",
    "vat": "value added tax follows from the lines",
    "total": "totals follow from lines and tax",
    "root": "the requests are those that the invoice was made of",
}
"""What each rule says."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    rule: str
    where: str
    expected: str
    found: str

    @property
    def text(self) -> str:
        """In one line."""
        return f"{self.rule}: {self.where}: expected {self.expected}, found {self.found}"


@dataclass(slots=True)
class Findings:
    """All that is wrong, as far as it is kept."""

    kept: list[Finding] = field(default_factory=list[Finding])
    count: int = 0

    def add(self, rule: str, where: str, expected: object, found: object) -> None:
        """One more."""
        self.count += 1
        if len(self.kept) < MOST:
            self.kept.append(Finding(rule, where, str(expected), str(found)))

    def same(self, rule: str, where: str, expected: object, found: object) -> bool:
        """Whether the two are equal, which is a finding if not."""
        if expected == found:
            return True
        self.add(rule, where, expected, found)
        return False
