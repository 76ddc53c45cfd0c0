"""The ledger: accounts, transfers and holds, whose balances the database keeps. Nothing but money; no prices."""

from galerne.ledger.accounts import Balance, lock_accounts_script, open_account_script
from galerne.ledger.amounts import amount_of, amount_text
from galerne.ledger.books import check_books
from galerne.ledger.chart import (
    LARGEST_NANO,
    Account,
    AccountKind,
    InsufficientFunds,
    TransferKind,
    customer_account,
    house_account,
)
from galerne.ledger.credits import Grant, grant_credit
from galerne.ledger.holds import (
    Granted,
    NewHold,
    OpenHold,
    Refused,
    Settlement,
    expired_script,
    hold_script,
    release_script,
    renew_script,
    settle_script,
)
from galerne.ledger.routes import router
from galerne.ledger.schemas import balance_fields
from galerne.ledger.service import accounts_of, all_accounts, balance, hold, transfers_of
from galerne.ledger.transfers import Posting, Transfer, post_script

__all__ = [
    "LARGEST_NANO",
    "Account",
    "AccountKind",
    "Balance",
    "Grant",
    "Granted",
    "InsufficientFunds",
    "NewHold",
    "OpenHold",
    "Posting",
    "Refused",
    "Settlement",
    "Transfer",
    "TransferKind",
    "accounts_of",
    "all_accounts",
    "amount_of",
    "amount_text",
    "balance",
    "balance_fields",
    "check_books",
    "customer_account",
    "expired_script",
    "grant_credit",
    "hold",
    "hold_script",
    "house_account",
    "lock_accounts_script",
    "open_account_script",
    "post_script",
    "release_script",
    "renew_script",
    "router",
    "settle_script",
    "transfers_of",
]
