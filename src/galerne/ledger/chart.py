"""The chart of accounts: the kinds of account and of transfer, what each transfer does, how accounts are named."""

from dataclasses import dataclass
from enum import StrEnum

from galerne.kernel.errors import BadRequest, GalerneError

LARGEST_NANO = 2**62 - 1
"""The largest amount or balance, 4.6 billion units of a currency: two of them still add up within 64 bits."""
_MOST_ID_CHARACTERS = 200


class AccountKind(StrEnum):
    """What an account stands for."""

    PREPAID = "prepaid"
    PROMO = "promo"
    COMMIT = "commit"
    SERVICE_CREDIT = "service_credit"
    RECEIVABLE = "receivable"
    ACCRUED_USAGE = "accrued_usage"
    CASH_CLEARING = "cash_clearing"
    REVENUE = "revenue"
    DEFERRED_REVENUE = "deferred_revenue"
    BREAKAGE = "breakage"
    TAX_PAYABLE = "tax_payable"
    MARKETPLACE_RECEIVABLE = "marketplace_receivable"
    MARKETPLACE_FEE = "marketplace_fee"
    PARTNER_PAYABLE = "partner_payable"
    ROUNDING = "rounding"
    REFUNDS = "refunds"
    BAD_DEBT = "bad_debt"
    PROMO_COST = "promo_cost"


class TransferKind(StrEnum):
    """What a transfer does: move money, set it aside, take a part of what was set aside, give the rest back."""

    POST = "post"
    HOLD = "hold"
    SETTLE = "settle"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Effect:
    """What one unit of a transfer adds to the posted and to the pending side of both of its accounts."""

    posted: int
    pending: int


EFFECTS = {
    TransferKind.POST: Effect(1, 0),
    TransferKind.HOLD: Effect(0, 1),
    TransferKind.SETTLE: Effect(1, -1),
    TransferKind.RELEASE: Effect(0, -1),
}


class InsufficientFunds(GalerneError):
    """The account has less than is asked for."""

    status = 402
    code = "insufficient_funds"


@dataclass(frozen=True, slots=True)
class Account:
    """The terms of an account. `organisation_id` None: the house's own. `credit_limit_nano` None: without a bound.

    A bounded account never has more debits, pending ones included, than posted credits plus its limit.
    """

    id: str
    organisation_id: str | None
    kind: AccountKind
    currency: str
    credit_limit_nano: int | None

    def __post_init__(self) -> None:
        if not 0 < len(self.id) <= _MOST_ID_CHARACTERS:
            raise BadRequest(f"An account's id has 1 to {_MOST_ID_CHARACTERS} characters.", param="id")
        if not (len(self.currency) == 3 and self.currency.isascii() and self.currency.isupper()):
            raise BadRequest(f"'{self.currency}' is no currency; write a code such as EUR.", param="currency")


def customer_account(kind: AccountKind, organisation_id: str, currency: str, *, credit_limit_nano: int = 0) -> Account:
    """The account of that kind of an organisation; nothing can be taken from it that is not there or lent to it."""
    return Account(f"{kind}:{organisation_id}:{currency}", organisation_id, kind, currency, credit_limit_nano)


def house_account(kind: AccountKind, currency: str) -> Account:
    """The house's own account of that kind, without a bound."""
    return Account(f"{kind}:{currency}", None, kind, currency, None)


def organisation_account(kind: AccountKind, organisation_id: str, currency: str) -> Account:
    """The account of that kind of an organisation in the house's books, without a bound: what it owes, say.

    It has the id of `customer_account`, so an organisation has one or the other.
    """
    return Account(f"{kind}:{organisation_id}:{currency}", organisation_id, kind, currency, None)
