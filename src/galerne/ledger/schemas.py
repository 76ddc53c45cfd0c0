"""Wire types of balances and lots: amounts are decimals in strings, for a number in JSON may be read as a float."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from galerne.kernel.web import Text, UtcMoment
from galerne.ledger.accounts import Balance
from galerne.ledger.amounts import amount_of, amount_text
from galerne.ledger.chart import AccountKind, TransferKind
from galerne.ledger.corrections import Correction
from galerne.ledger.credits import Grant, Lot
from galerne.ledger.lapses import Lapse
from galerne.ledger.lots import USUAL_PRIORITY, LotKind, LotSource
from galerne.ledger.statements import Statement, StatementLine


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


class StatementLineOut(BaseModel):
    """One transfer: `change` is below 0 where money left the account, `balance` is what it had then.

    `other` is the kind of account on the other side. A `settle` paid a request: its `id` is the request's.
    """

    object: Literal["transfer"]
    id: str
    at: datetime
    kind: TransferKind
    other: AccountKind
    change: str
    balance: str
    reason: str | None


class StatementOut(BaseModel):
    """What moved an account's balance, the last recorded first; the next page is `page` = `next_page`."""

    object: Literal["statement"]
    account: str
    currency: str
    data: list[StatementLineOut]
    has_more: bool
    next_page: str | None


def statement_fields(statement: Statement) -> dict[str, object]:
    """A page of a statement as JSON fields."""
    return {
        "object": "statement",
        "account": statement.account_id,
        "currency": statement.currency,
        "data": [_line_fields(each) for each in statement.lines],
        "has_more": statement.next_page is not None,
        "next_page": statement.next_page,
    }


def _line_fields(line: StatementLine) -> dict[str, object]:
    return {
        "object": "transfer",
        "id": line.id,
        "at": line.at,
        "kind": str(line.kind),
        "other": str(line.other),
        "change": amount_text(line.change_nano),
        "balance": amount_text(line.balance_nano),
        "reason": line.reason,
    }


class LotOut(BaseModel):
    """One lot of credit. `left` is what is left of it, before spend that is not burned yet.

    `granted` is 0 until it is effective; `restored` is what was given back of `burned`.
    """

    object: Literal["lot"]
    id: str
    account: str
    currency: str
    kind: LotKind
    priority: int
    source: LotSource
    source_ref: str | None
    replaces: str | None
    note: str
    effective_at: datetime
    expires_at: datetime | None
    voided_at: datetime | None
    amount: str
    granted: str
    burned: str
    restored: str
    expired: str
    voided: str
    left: str


class LotList(BaseModel):
    """Lots in the order in which they are burned."""

    object: Literal["list"]
    data: list[LotOut]


class LapseOut(BaseModel):
    """Money that moved because a lot ended: `expire` or `void`."""

    object: Literal["lapse"]
    transfer: str
    lot: str
    kind: str
    amount: str


class LapseList(BaseModel):
    """What was booked."""

    object: Literal["list"]
    data: list[LapseOut]


class GrantIn(BaseModel):
    """Credit for an organisation; the same `id` is granted once."""

    model_config = ConfigDict(extra="forbid")

    id: Text
    organisation: Text
    amount: Text
    currency: Text
    reason: Text
    kind: LotKind = LotKind.PAID
    priority: int = USUAL_PRIORITY
    effective_at: UtcMoment | None = None
    expires_at: UtcMoment | None = None
    invoice: Text | None = None

    def grant(self) -> Grant:
        """The same, as the ledger takes it; `BadRequest` for what cannot be."""
        source = LotSource.PAYMENT if self.kind is LotKind.PAID else LotSource.GRANT
        return Grant(
            id=self.id,
            amount_nano=amount_of(self.amount),
            currency=self.currency,
            reason=self.reason,
            kind=self.kind,
            priority=self.priority,
            effective_at=self.effective_at,
            expires_at=self.expires_at,
            source=source if self.invoice is None else LotSource.INVOICE,
            source_ref=self.invoice,
        )


class GrantOut(BaseModel):
    """Whether it was granted now, or before."""

    object: Literal["grant"]
    id: str
    granted: bool


class VoidIn(BaseModel):
    """Why a lot of an organisation ends."""

    model_config = ConfigDict(extra="forbid")

    organisation: Text
    reason: Text


class CorrectionIn(BaseModel):
    """How much of a charge is given back; the same `id` is given back once."""

    model_config = ConfigDict(extra="forbid")

    id: Text
    organisation: Text
    charge: Text
    amount: Text
    reason: Text

    def correction(self) -> Correction:
        """The same, as the ledger takes it; `BadRequest` for what cannot be."""
        nano = amount_of(self.amount)
        return Correction(id=self.id, charge_id=self.charge, amount_nano=nano, reason=self.reason)


class CorrectionOut(BaseModel):
    """Whether it was given back now, or before."""

    object: Literal["correction"]
    id: str
    corrected: bool


def lot_fields(lot: Lot) -> dict[str, object]:
    """One lot as the fields of `LotOut`."""
    sums = ("granted", "burned", "restored", "expired", "voided", "left", "amount")
    return {
        "object": "lot",
        "id": lot.id,
        "account": lot.account_id,
        "currency": lot.currency,
        "kind": str(lot.kind),
        "priority": lot.priority,
        "source": str(lot.source),
        "source_ref": lot.source_ref,
        "replaces": lot.replaces_lot_id,
        "note": lot.note,
        "effective_at": lot.effective_at,
        "expires_at": lot.expires_at,
        "voided_at": lot.voided_at,
        **{name: amount_text(getattr(lot, f"{name}_nano")) for name in sums},
    }


def lapse_fields(lapse: Lapse) -> dict[str, object]:
    """What was booked of one lot as the fields of `LapseOut`."""
    amount = amount_text(lapse.nano)
    transfer, kind = lapse.transfer_id, str(lapse.kind)
    return {"object": "lapse", "transfer": transfer, "lot": lapse.lot_id, "kind": kind, "amount": amount}
