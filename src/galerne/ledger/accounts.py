"""Accounts as scripts: opening them, locking them in the one order that cannot deadlock, reading what they have."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from galerne.kernel import Conflict, Lock, Query, Script
from galerne.ledger.chart import Account, AccountKind

_OPEN = """
INSERT INTO ledger_accounts (id, organisation_id, kind, currency, credit_limit_nano, created_at)
VALUES (:id, :organisation_id, :kind, :currency, :credit_limit_nano, :created_at) ON CONFLICT (id) DO NOTHING"""
_TERMS = "SELECT id, organisation_id, kind, currency, credit_limit_nano FROM ledger_accounts WHERE id = :id"
_PREPAID = """
SELECT currency, id FROM ledger_accounts WHERE organisation_id = :organisation_id AND kind = :kind ORDER BY id"""
_LOCK = """
SELECT id, organisation_id, kind, currency, credit_limit_nano,
  debits_posted_nano, debits_pending_nano, credits_posted_nano, credits_pending_nano
FROM ledger_accounts WHERE id IN :ids ORDER BY id FOR UPDATE"""


@dataclass(frozen=True, slots=True)
class Balance:
    """An account with its sums: posted ones are final, pending ones are held."""

    account: Account
    debits_posted_nano: int
    debits_pending_nano: int
    credits_posted_nano: int
    credits_pending_nano: int

    @property
    def credit_nano(self) -> int:
        """Posted credits less posted debits: what a customer's account is worth, holds not counted."""
        return self.credits_posted_nano - self.debits_posted_nano

    @property
    def available_nano(self) -> int | None:
        """What can still be taken, holds and the credit limit counted; None without a bound."""
        limit = self.account.credit_limit_nano
        return None if limit is None else self.credit_nano + limit - self.debits_pending_nano


def open_account_script(account: Account, at: datetime) -> Script[None]:
    """Open `account`, or change nothing if it is open; raises `Conflict` if it is open with other terms."""
    values = {
        "id": account.id,
        "organisation_id": account.organisation_id,
        "kind": str(account.kind),
        "currency": account.currency,
        "credit_limit_nano": account.credit_limit_nano,
        "created_at": at,
    }
    yield Query(_OPEN, values)
    (row,) = yield Query(_TERMS, {"id": account.id})
    if (found := _account(row)) != account:
        raise Conflict(f"The account '{account.id}' is open with other terms: {found}.")


def prepaid_accounts_script(organisation_id: str) -> Script[dict[str, str]]:
    """The id of an organisation's prepaid account in each currency, in the order of `accounts_of`."""
    rows = yield Query(_PREPAID, {"organisation_id": organisation_id, "kind": str(AccountKind.PREPAID)})
    return dict(map(tuple, rows))


def lock_accounts_script(ids: Collection[str]) -> Script[dict[str, Balance]]:
    """Lock accounts in the order of their ids until the transaction ends; those that exist, with their balances.

    Two transactions that lock all their accounts so, before anything else of the ledger, cannot deadlock. Each script
    of the ledger begins with it; who runs several in one transaction runs it first, over the accounts of all.
    """
    rows = yield Query(_LOCK, {"ids": sorted(ids)})
    return {row[0]: balance_of(row) for row in rows}


def wait_for_accounts_script(ids: Collection[str]) -> Script[None]:
    """Lock accounts like `lock_accounts_script`, for whoever has no use for their balances."""
    yield Lock(Query(_LOCK, {"ids": sorted(ids)}))


def balance_of(row: Sequence[Any]) -> Balance:
    """The balance in a row of an account's terms and sums, in the order in which they are declared."""
    return Balance(_account(row), *row[5:9])


def _account(row: Sequence[Any]) -> Account:
    return Account(row[0], row[1], AccountKind(row[2]), row[3], row[4])
