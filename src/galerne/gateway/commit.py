"""What one group commit writes, as one script: requests that ended, what is reserved for others, what is under way.

The order is the order of locks, the same in every process, so that none waits for another in a circle: accounts and
holds, pools and leases, and the journal's head last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from galerne.gateway.progress import Progress, forget_script, progress_script
from galerne.gateway.reservations import Answers, Orders
from galerne.gateway.settled import Settled
from galerne.journal import Entry, append_script
from galerne.kernel import Script
from galerne.ledger import (
    Granted,
    Refused,
    hold_script,
    post_script,
    release_script,
    settle_script,
    wait_for_accounts_script,
)
from galerne.ledger import renew_script as renew_holds_script
from galerne.metering import record_script, renew_script, spend_script, takes_script

__all__ = ["Commit", "Errand", "commit_script", "settled_script"]

Errand = Callable[[], Script[Any]]
"""A script to be made anew for each try."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that is written together; an `errand` is alone."""

    settled: Sequence[Settled] = ()
    orders: Orders | None = None
    progress: Sequence[Progress] = ()
    errand: Errand | None = None


def commit_script(commit: Commit) -> Script[Answers]:
    """Write `commit`; what the database answers to its orders."""
    if commit.errand is not None:
        return Answers(errand=(yield from commit.errand()))
    accounts = _accounts(commit)
    if accounts:
        yield from wait_for_accounts_script(accounts)
    answers = Answers()
    if commit.orders is not None:
        yield from _money_script(commit.orders, answers)
        yield from _limits_script(commit.orders, answers)
    if commit.progress:
        yield from progress_script(commit.progress)
    entries = yield from settled_script(commit.settled)
    if entries:
        yield from append_script(entries)
    return answers


def _money_script(orders: Orders, answers: Answers) -> Script[None]:
    if orders.release:
        yield from release_script(orders.release, orders.at)
    holds: list[Granted | Refused] = []
    for new in orders.holds:
        holds.append((yield from hold_script(new)))
    answers.holds = holds
    if orders.renew_holds:
        answers.open_holds = yield from renew_holds_script(orders.renew_holds, orders.expires_at_ms)


def _limits_script(orders: Orders, answers: Answers) -> Script[None]:
    if orders.takes or orders.give_back:
        answers.takes = yield from takes_script(orders.takes, orders.now_ms, orders.give_back)
    if orders.renew_leases:
        answers.leases = yield from renew_script(orders.renew_leases, orders.expires_at_ms)


def settled_script(batch: Sequence[Settled]) -> Script[list[Entry]]:
    """Write requests that ended, each once; what the journal is to say of them, which comes last in a transaction."""
    if not batch:
        return []
    new = yield from record_script([one.event for one in batch])
    # A commit may have gone through though its confirmation was lost: then a second try finds all of it there.
    fresh = [one for one in {one.event.id: one for one in batch}.values() if one.event.id in new]
    settlements = [one.settlement for one in fresh if one.settlement is not None]
    if settlements:
        yield from settle_script(settlements)
    for one in fresh:
        if one.posting is not None:
            yield from post_script(one.posting)
    spent: dict[str, int] = {}
    for one in fresh:
        for lease, amount in one.spent.items():
            spent[lease] = spent.get(lease, 0) + amount
    if spent:
        yield from spend_script(spent)
    yield from forget_script([one.event.id for one in fresh if one.event.streamed])
    return [one.entry for one in fresh]


def _accounts(commit: Commit) -> set[str]:
    found: set[str] = set()
    for one in commit.settled:
        if one.settlement is not None:
            found |= {one.settlement.debit_account_id, one.settlement.credit_account_id}
    if commit.orders is not None:
        found |= commit.orders.accounts
    return found
