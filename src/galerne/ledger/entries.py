"""Journal entries with several legs: an invoice's receivable against revenue and tax, a payment with its rounding.

The ledger knows transfers with one debit and one credit, so a balanced entry becomes the few transfers that have the
same effect: debits are matched with credits in the order in which both are written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.kernel import BadRequest, Conflict, Insert, NotFound, Query, Script, run_in_session
from galerne.ledger.accounts import Balance, lock_accounts_script, open_account_script
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import LARGEST_NANO, Account, InsufficientFunds, TransferKind
from galerne.ledger.tables import TransferRow

_MOST_LEGS = 1000
_TRANSFERS = cast(SqlTable, TransferRow.__table__)
_COLUMNS = ("id", "kind", "debit_account_id", "credit_account_id", "amount_nano", "reason", "at")
_RECORDED = """
SELECT id, kind, debit_account_id, credit_account_id, amount_nano, reason FROM ledger_transfers WHERE id IN :ids"""


@dataclass(frozen=True, slots=True)
class Leg:
    """An amount on one account, above 0; the entry says on which side."""

    account_id: str
    nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BookEntry:
    """A balanced journal entry: both sides add up to the same, in one currency, each account on one side once.

    Its transfers are `id` followed by `:1`, `:2`… Raises `BadRequest` when it is made of something else.
    """

    id: str
    debits: Sequence[Leg]
    credits: Sequence[Leg]
    at: datetime
    reason: str

    def __post_init__(self) -> None:
        legs = (*self.debits, *self.credits)
        if not (self.debits and self.credits and len(legs) <= _MOST_LEGS):
            raise BadRequest(f"An entry has at least one debit and one credit, at most {_MOST_LEGS} in all.")
        if any(not 0 < leg.nano <= LARGEST_NANO for leg in legs):
            raise BadRequest(f"An amount lies between 1 and {LARGEST_NANO} nano-units.", param="nano")
        if len({leg.account_id for leg in legs}) < len(legs):
            raise BadRequest("An entry names each account once.", param="account_id")
        debited, credited = (sum(leg.nano for leg in side) for side in (self.debits, self.credits))
        if debited != credited:
            raise BadRequest(f"The debits are {amount_text(debited)} and the credits {amount_text(credited)}.")

    def transfers(self) -> list[tuple[str, str, str, str, int, str]]:
        """The transfers that have its effect: id, kind, debited and credited account, amount, reason."""
        others = iter(self.credits)
        credit = next(others)
        open_nano = credit.nano
        found: list[tuple[str, str, str, str, int, str]] = []
        for debit in self.debits:
            left = debit.nano
            while left:
                if not open_nano:
                    credit = next(others)
                    open_nano = credit.nano
                nano = min(left, open_nano)
                name = f"{self.id}:{len(found) + 1}"
                found.append((name, str(TransferKind.POST), debit.account_id, credit.account_id, nano, self.reason))
                left, open_nano = left - nano, open_nano - nano
        return found


def post_entry_script(entry: BookEntry) -> Script[bool]:
    """Write the entry, whole or not at all; False if it was written before with the same content, `at` aside.

    Raises `Conflict` if its id has other content, `NotFound` for an account that is not open, `BadRequest` between two
    currencies, `InsufficientFunds` when a debited account has less.
    """
    wanted = entry.transfers()
    ids = [each.account_id for each in (*entry.debits, *entry.credits)]
    balances = yield from lock_accounts_script(ids)
    for name in ids:
        if name not in balances:
            raise NotFound(f"The account '{name}' is not open.")
    # One more than there are: an entry that began the same way and went on is another one.
    names = [each[0] for each in wanted] + [f"{entry.id}:{len(wanted) + 1}"]
    recorded = sorted(tuple(row) for row in (yield Query(_RECORDED, {"ids": names})))
    if recorded:
        if recorded == sorted(wanted):
            return False
        raise Conflict(f"The entry '{entry.id}' is recorded with other content.")
    _check_funds(entry, balances)
    yield Insert(_TRANSFERS, _COLUMNS, [(*each, entry.at) for each in wanted])
    return True


async def post_entry(session: AsyncSession, entry: BookEntry, accounts: Sequence[Account] = ()) -> bool:
    """Like `post_entry_script`, opening `accounts` first where they are not."""
    for account in sorted(accounts, key=lambda each: each.id):
        await run_in_session(session, open_account_script(account, entry.at))
    return await run_in_session(session, post_entry_script(entry))


def _check_funds(entry: BookEntry, balances: dict[str, Balance]) -> None:
    currencies: set[Any] = {each.account.currency for each in balances.values()}
    if len(currencies) > 1:
        raise BadRequest(f"An entry is in one currency, not in {' and '.join(sorted(currencies))}.")
    for leg in entry.debits:
        available = balances[leg.account_id].available_nano
        if available is not None and available < leg.nano:
            raise InsufficientFunds(f"'{leg.account_id}' has {amount_text(available)}, not {amount_text(leg.nano)}.")
