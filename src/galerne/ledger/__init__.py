"""The ledger: accounts, transfers, holds and lots, whose sums the database keeps. Nothing but money; no prices."""

from galerne.ledger.accounts import Balance, lock_accounts_script, open_account_script
from galerne.ledger.allocation import USUAL_BATCH, Allocated, allocate_script, behind_script
from galerne.ledger.amounts import amount_of, amount_text, half_even
from galerne.ledger.books import check_books
from galerne.ledger.chart import (
    LARGEST_NANO,
    Account,
    AccountKind,
    InsufficientFunds,
    TransferKind,
    customer_account,
    house_account,
    organisation_account,
)
from galerne.ledger.corrections import GRACE, Correction, correct_script
from galerne.ledger.credits import Grant, Lot, correct_charge, grant_credit, lots_of, sweep_credits, void_lot
from galerne.ledger.entries import BookEntry, Leg, post_entry, post_entry_script
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
from galerne.ledger.lapses import Lapse, sweep_script, void_script
from galerne.ledger.lots import (
    USUAL_PRIORITY,
    Burned,
    LotBook,
    LotChange,
    LotKind,
    LotSource,
    LotTerms,
    Part,
    burn_order,
    unwind,
)
from galerne.ledger.routes import router
from galerne.ledger.schemas import balance_fields, lapse_fields, lot_fields
from galerne.ledger.service import accounts_of, all_accounts, balance, burn_lots, hold, sweep_all, transfers_of
from galerne.ledger.settled import settled_by
from galerne.ledger.transfers import Posting, Transfer, post_script

__all__ = [
    "GRACE",
    "LARGEST_NANO",
    "USUAL_BATCH",
    "USUAL_PRIORITY",
    "Account",
    "AccountKind",
    "Allocated",
    "Balance",
    "BookEntry",
    "Burned",
    "Correction",
    "Grant",
    "Granted",
    "InsufficientFunds",
    "Lapse",
    "Leg",
    "Lot",
    "LotBook",
    "LotChange",
    "LotKind",
    "LotSource",
    "LotTerms",
    "NewHold",
    "OpenHold",
    "Part",
    "Posting",
    "Refused",
    "Settlement",
    "Transfer",
    "TransferKind",
    "accounts_of",
    "all_accounts",
    "allocate_script",
    "amount_of",
    "amount_text",
    "balance",
    "balance_fields",
    "behind_script",
    "burn_lots",
    "burn_order",
    "check_books",
    "correct_charge",
    "correct_script",
    "customer_account",
    "expired_script",
    "grant_credit",
    "half_even",
    "hold",
    "hold_script",
    "house_account",
    "lapse_fields",
    "lock_accounts_script",
    "lot_fields",
    "lots_of",
    "open_account_script",
    "organisation_account",
    "post_entry",
    "post_entry_script",
    "post_script",
    "release_script",
    "renew_script",
    "router",
    "settle_script",
    "settled_by",
    "sweep_all",
    "sweep_credits",
    "sweep_script",
    "transfers_of",
    "unwind",
    "void_lot",
    "void_script",
]
