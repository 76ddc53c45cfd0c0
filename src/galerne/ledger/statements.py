"""An account's statement: what moved its balance, newest first, with the balance after each; holds move nothing.

Of one account a later commit has a larger `seq`, so the balance after a transfer never changes. A page's address
carries it: no page has to be summed from the account's beginning.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, literal, literal_column, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from galerne.kernel import BadRequest, NotFound
from galerne.ledger.chart import LARGEST_NANO, AccountKind, TransferKind
from galerne.ledger.tables import AccountRow, TransferRow

# As text, for SQLite uses a partial index only where it can read the condition.
_POSTED = TransferRow.kind == literal_column(f"'{TransferKind.POST}'")
_MOVED = TransferRow.kind.in_([str(TransferKind.POST), str(TransferKind.SETTLE)])
_OTHER = aliased(AccountRow)


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One transfer as the account sees it: `change_nano` is below 0 for a debit; `other` is where it came from or went.

    `reason` is None for a settled request: its id is the transfer's.
    """

    id: str
    at: datetime
    kind: TransferKind
    other: AccountKind
    change_nano: int
    balance_nano: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Statement:
    """A page of an account's statement, and the page with what is older; `next_page` is None where there is nothing."""

    account_id: str
    currency: str
    lines: list[StatementLine]
    next_page: str | None


async def statement_of(
    session: AsyncSession, organisation_id: str, account_id: str, limit: int = 100, page: str | None = None
) -> Statement:
    """At most `limit` transfers of one of an organisation's accounts, the last recorded first.

    Raises `NotFound` for an account that is not open or is not the organisation's, `BadRequest` for a page that is not
    of this account. An organisation's account is credited by postings alone, never from a hold.
    """
    is_its = (AccountRow.id == account_id, AccountRow.organisation_id == organisation_id)
    currency = (await session.execute(select(AccountRow.currency).where(*is_its))).scalar_one_or_none()
    if currency is None:
        raise NotFound(f"The account '{account_id}' is not open.")
    seq, older_nano = (None, None) if page is None else await _place(session, account_id, page)
    rows = (await session.execute(_page(account_id, limit + 1, seq))).all()
    balance_nano: int = rows[0].balance_nano if rows and older_nano is None else older_nano or 0
    lines = list[StatementLine]()
    for row in rows[:limit]:
        kinds = TransferKind(row.kind), AccountKind(row.other)
        lines.append(StatementLine(row.id, row.at, *kinds, row.change_nano, balance_nano, row.reason))
        balance_nano -= row.change_nano
    next_page = _address(lines[-1].id, balance_nano) if len(rows) > limit else None
    return Statement(account_id, currency, lines, next_page)


def _page(account_id: str, limit: int, seq: int | None) -> Select[Any]:
    # One statement, so that transfers and balance are of one moment; each side walks its own index.
    debit, credit = TransferRow.debit_account_id, TransferRow.credit_account_id
    older: list[ColumnElement[bool]] = [] if seq is None else [TransferRow.seq < seq]
    out = _side(literal(-1), credit, [debit == account_id, _MOVED, *older], limit)
    into = _side(literal(1), debit, [credit == account_id, _POSTED, *older], limit)
    sides = union_all(out, into).subquery()
    balance = (AccountRow.credits_posted_nano - AccountRow.debits_posted_nano).label("balance_nano")
    query = select(sides, balance, _OTHER.kind.label("other")).select_from(sides)
    query = query.join(AccountRow, AccountRow.id == account_id)
    return query.join(_OTHER, _OTHER.id == sides.c.other_id).order_by(sides.c.seq.desc()).limit(limit)


def _side(
    sign: ColumnElement[int], other: InstrumentedAttribute[str], conditions: list[ColumnElement[bool]], limit: int
) -> Select[Any]:
    row = TransferRow
    change = (row.amount_nano * sign).label("change_nano")
    query = select(row.seq, row.id, row.at, row.kind, row.reason, other.label("other_id"), change)
    newest = query.where(*conditions).order_by(row.seq.desc()).limit(limit).subquery()
    return select(newest)


def _address(transfer_id: str, balance_nano: int) -> str:
    return base64.urlsafe_b64encode(f"{balance_nano}:{transfer_id}".encode()).decode().rstrip("=")


async def _place(session: AsyncSession, account_id: str, page: str) -> tuple[int, int]:
    try:
        nano, _, transfer_id = base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)).decode().partition(":")
        balance_nano = int(nano)
    except (binascii.Error, ValueError):
        transfer_id, balance_nano = "", 0
    seq = None
    if transfer_id and "\x00" not in transfer_id and abs(balance_nano) <= LARGEST_NANO:
        is_its = or_(TransferRow.debit_account_id == account_id, TransferRow.credit_account_id == account_id)
        query = select(TransferRow.seq).where(TransferRow.id == transfer_id, is_its)
        seq = (await session.execute(query)).scalar_one_or_none()
    if seq is None:
        raise BadRequest("This is no page of that account; take `next_page` of the page before.", param="page")
    return seq, balance_nano
