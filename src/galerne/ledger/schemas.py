"""Wire types of balances: amounts are decimals in strings, for a number in JSON may be a float to its reader."""

from typing import Literal

from pydantic import BaseModel

from galerne.ledger.accounts import Balance
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import AccountKind


class AccountOut(BaseModel):
    """One account: `balance` is posted credits less posted debits, `held` is set aside for running requests.

    `available` is what can still be spent; it and `credit_limit` are null for an account without a bound.
    """

    object: Literal["account"]
    id: str
    kind: AccountKind
    currency: str
    balance: str
    held: str
    credit_limit: str | None
    available: str | None


class BalanceOut(BaseModel):
    """The accounts of an organisation, by id."""

    object: Literal["balance"]
    data: list[AccountOut]


def balance_fields(balance: Balance) -> dict[str, object]:
    """One account's balance as JSON fields."""
    account, available = balance.account, balance.available_nano
    limit = account.credit_limit_nano
    return {
        "object": "account",
        "id": account.id,
        "kind": str(account.kind),
        "currency": account.currency,
        "balance": amount_text(balance.credit_nano),
        "held": amount_text(balance.debits_pending_nano),
        "credit_limit": None if limit is None else amount_text(limit),
        "available": None if available is None else amount_text(available),
    }
