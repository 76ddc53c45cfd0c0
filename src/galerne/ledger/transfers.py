"""The script that posts a transfer at once, without a hold."""

from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Table as SqlTable

from galerne.kernel import BadRequest, Conflict, Insert, NotFound, Query, Script
from galerne.ledger.accounts import lock_accounts_script
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import LARGEST_NANO, InsufficientFunds, TransferKind
from galerne.ledger.tables import TransferRow

_TRANSFERS = cast(SqlTable, TransferRow.__table__)
_COLUMNS = ("id", "kind", "debit_account_id", "credit_account_id", "amount_nano", "reason", "at")
_RECORDED = """
SELECT kind, debit_account_id, credit_account_id, amount_nano, reason FROM ledger_transfers WHERE id = :id"""
_TO_COME = "SELECT 1 FROM ledger_lots WHERE id = :id AND granted_nano = 0"


@dataclass(frozen=True, slots=True)
class Posting:
    """A wish to move money at once: from what the debited account has to the credited one, and why."""

    id: str
    debit_account_id: str
    credit_account_id: str
    amount_nano: int
    at: datetime
    reason: str

    def __post_init__(self) -> None:
        if not 0 < self.amount_nano <= LARGEST_NANO:
            raise BadRequest(f"An amount lies between 1 and {LARGEST_NANO} nano-units.", param="amount_nano")
        if self.debit_account_id == self.credit_account_id:
            raise BadRequest("A transfer is between two accounts.", param="credit_account_id")


def post_script(new: Posting) -> Script[bool]:
    """Move the money; False if it was recorded before with the same content, `at` aside, and nothing changed.

    Raises `Conflict` if the id is recorded with other content, `NotFound` for an account that is not open, `BadRequest`
    between two currencies, `InsufficientFunds` when the debited account has less.
    """
    balances = yield from lock_accounts_script({new.debit_account_id, new.credit_account_id})
    for name in (new.debit_account_id, new.credit_account_id):
        if name not in balances:
            raise NotFound(f"The account '{name}' is not open.")
    content = (str(TransferKind.POST), new.debit_account_id, new.credit_account_id, new.amount_nano, new.reason)
    for row in (yield Query(_RECORDED, {"id": new.id})):
        if tuple(row) == content:
            return False
        raise Conflict(f"The transfer '{new.id}' is recorded with other content.")
    yield from check_name_script(new.id)
    debit, credit = balances[new.debit_account_id], balances[new.credit_account_id]
    if debit.account.currency != credit.account.currency:
        raise BadRequest(
            f"'{debit.account.id}' is in {debit.account.currency}, '{credit.account.id}' in {credit.account.currency}."
        )
    if debit.available_nano is not None and debit.available_nano < new.amount_nano:
        has, wants = amount_text(debit.available_nano), amount_text(new.amount_nano)
        raise InsufficientFunds(f"'{debit.account.id}' has {has} {debit.account.currency}, not {wants}.")
    yield Insert(_TRANSFERS, _COLUMNS, [(new.id, *content, new.at)])
    return True


def check_name_script(transfer_id: str) -> Script[None]:
    """Raise `Conflict` if credit that is still to come will come under that id: its money could never come."""
    if (yield Query(_TO_COME, {"id": transfer_id})):
        raise Conflict(f"'{transfer_id}' is the id of credit that is to come.")
