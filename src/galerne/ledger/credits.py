"""Credit of an organisation, granted in lots: what a lot is to be, and the use cases, which never commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor, ActorKind
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, NotFound, Query, Script, run_in_session
from galerne.ledger.accounts import lock_accounts_script, open_account_script
from galerne.ledger.amounts import amount_text
from galerne.ledger.chart import LARGEST_NANO, Account, AccountKind, customer_account, house_account
from galerne.ledger.corrections import Correction, correct_script
from galerne.ledger.lapses import Lapse, sweep_script, void_script
from galerne.ledger.lot_rows import LotEntry, NewLot, read_time, write_entries_script, write_lots_script
from galerne.ledger.lot_tables import LotEndRow, LotRow
from galerne.ledger.lots import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    USUAL_PRIORITY,
    LotChange,
    LotKind,
    LotSource,
    LotTerms,
    burn_order,
)
from galerne.ledger.tables import AccountRow, TransferRow
from galerne.ledger.transfers import Posting, post_script

_LONGEST_TEXT = 200
_RECORDED = """
SELECT account_id, funding_account_id, kind, amount_nano, priority, effective_at, expires_at, source, source_ref, note
FROM ledger_lots WHERE id = :id"""
_NAMED_SO = "SELECT 1 FROM ledger_transfers WHERE id = :id"
_FUNDING = {LotKind.PAID: AccountKind.CASH_CLEARING, LotKind.PROMOTIONAL: AccountKind.PROMO_COST}
_ACTIONS = {LotChange.GRANT: "credit.began", LotChange.EXPIRE: "credit.expired", LotChange.VOID: "credit.returned"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Credit to give as one lot; `id` tells one grant from another, so that one that is asked for twice is given once.

    `effective_at` None: at once; with a time to come its money comes then. `expires_at` None: never. `funding` None:
    the house's clearing of payments for what is paid, its cost of promotions for what is not.
    """

    id: str
    amount_nano: int
    currency: str
    reason: str
    kind: LotKind = LotKind.PAID
    priority: int = USUAL_PRIORITY
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    source: LotSource = LotSource.PAYMENT
    source_ref: str | None = None
    funding: Account | None = None

    def __post_init__(self) -> None:
        for name in ("id", "reason", "source_ref"):
            text = getattr(self, name)
            if text is not None and not (0 < len(text) <= _LONGEST_TEXT and text.isprintable()):
                raise BadRequest(f"{name}: 1 to {_LONGEST_TEXT} printable characters.", param=name)
        if not 0 < self.amount_nano <= LARGEST_NANO:
            raise BadRequest(f"An amount lies between 1 and {LARGEST_NANO} nano-units.", param="amount")
        if not HIGHEST_PRIORITY <= self.priority <= LOWEST_PRIORITY:
            raise BadRequest(
                f"A priority lies between {HIGHEST_PRIORITY}, burned first, and {LOWEST_PRIORITY}.", param="priority"
            )
        if self.expires_at is not None and self.effective_at is not None and self.expires_at <= self.effective_at:
            raise BadRequest("Credit expires after it becomes effective.", param="expires_at")


@dataclass(frozen=True, slots=True)
class Lot:
    """A lot as it is: what came, and what became of it; amounts in nano-units, burned as far as it is allocated."""

    id: str
    account_id: str
    currency: str
    kind: LotKind
    amount_nano: int
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    source: LotSource
    source_ref: str | None
    replaces_lot_id: str | None
    note: str
    granted_nano: int
    burned_nano: int
    restored_nano: int
    expired_nano: int
    voided_nano: int
    voided_at: datetime | None

    @property
    def left_nano(self) -> int:
        """What is left of it, before spend that is not burned yet."""
        return self.granted_nano + self.restored_nano - self.burned_nano - self.expired_nano - self.voided_nano


async def grant_credit(session: AsyncSession, actor: Actor, grant: Grant, clock: Clock) -> bool:
    """Credit the organisation of `actor` with a lot, opening the accounts that it needs; journalled.

    False if it was granted before with the same content, and nothing changed; `Conflict` if with other content.
    """
    at = clock.now()
    if grant.expires_at is not None and grant.expires_at <= at:
        raise BadRequest("Credit expires in the future.", param="expires_at")
    prepaid = customer_account(AccountKind.PREPAID, actor.organisation_id, grant.currency)
    funding = grant.funding or house_account(_FUNDING[grant.kind], grant.currency)
    if funding.currency != grant.currency or funding.id == prepaid.id:
        raise BadRequest("Credit is funded from another account of its currency.", param="funding")
    # Revenue too, which is what the credit will be spent into.
    accounts = {each.id: each for each in (prepaid, funding, house_account(AccountKind.REVENUE, grant.currency))}
    for name in sorted(accounts):
        await run_in_session(session, open_account_script(accounts[name], at))
    if not await run_in_session(session, _grant_script(grant, prepaid.id, funding.id, at)):
        return False
    detail = {"transfer": grant.id, "amount": amount_text(grant.amount_nano), "currency": grant.currency}
    await append(session, [_entry("credit.granted", actor, f"account:{prepaid.id}", at, detail)])
    return True


async def lots_of(session: AsyncSession, organisation_id: str | None = None) -> list[Lot]:
    """The lots of an organisation, or all for None, in burn order by account."""
    query = (
        select(LotRow, AccountRow.currency, LotEndRow.at)
        .join(AccountRow, AccountRow.id == LotRow.account_id)
        .outerjoin(LotEndRow, LotEndRow.lot_id == LotRow.id)
    )
    if organisation_id is not None:
        query = query.where(AccountRow.organisation_id == organisation_id)
    lots = [_lot(*row) for row in (await session.execute(query)).all()]
    return sorted(lots, key=lambda each: (each.account_id, burn_order(_terms(each))))


async def sweep_credits(session: AsyncSession, account_id: str, clock: Clock) -> list[Lapse]:
    """Bring what has become effective and book what is over, of one account; journalled as the system's.

    Raises `NotFound` for an unknown account. What a hold may still take stays for a later sweep.
    """
    account = await session.get(AccountRow, account_id)
    if account is None:
        raise NotFound(f"The account '{account_id[:100]}' is not open.")
    now = clock.now()
    breakage = house_account(AccountKind.BREAKAGE, account.currency)
    await run_in_session(session, open_account_script(breakage, now))
    lapses = await run_in_session(session, sweep_script(account_id, breakage.id, now))
    if lapses:
        actor = Actor(ActorKind.SYSTEM, "system", account.organisation_id or "", None)
        await append(session, [_lapsed(each, actor, account.currency, now) for each in lapses])
    return lapses


async def void_lot(session: AsyncSession, actor: Actor, lot_id: str, reason: str, clock: Clock) -> list[Lapse]:
    """End a lot of the actor's organisation; what is left of it goes back to where it came from; journalled.

    What a hold may still take goes back with a later sweep. Voiding it again for the same reason books what is free by
    now. Raises `NotFound`, and `Conflict` when nothing is left of it or it was voided for another reason.
    """
    if not (0 < len(reason) <= _LONGEST_TEXT and reason.isprintable()):
        raise BadRequest(f"reason: 1 to {_LONGEST_TEXT} printable characters.", param="reason")
    row = await session.get(LotRow, lot_id)
    account = None if row is None else await session.get(AccountRow, row.account_id)
    if row is None or account is None or account.organisation_id != actor.organisation_id:
        raise NotFound(f"There is no lot '{lot_id[:100]}'.", code="lot_not_found", param="lot")
    now = clock.now()
    breakage = house_account(AccountKind.BREAKAGE, account.currency)
    await run_in_session(session, open_account_script(breakage, now))
    ended = await run_in_session(session, void_script(account.id, lot_id, breakage.id, now, reason))
    lapses = await run_in_session(session, sweep_script(account.id, breakage.id, now))
    said = [_entry("credit.voided", actor, f"lot:{lot_id}", now, {})] if ended else []
    await append(session, [*said, *(_lapsed(each, actor, account.currency, now) for each in lapses)])
    return lapses


async def correct_charge(session: AsyncSession, actor: Actor, new: Correction, clock: Clock) -> bool:
    """Give back what was charged wrongly, to the lots that paid it; journalled. As `correct_script`.

    A charge of another organisation than the actor's is unknown.
    """
    now = clock.now()
    payer = select(AccountRow.organisation_id).join(TransferRow, TransferRow.debit_account_id == AccountRow.id)
    whose = await session.scalar(payer.where(TransferRow.id == new.charge_id))
    if whose not in (None, actor.organisation_id):
        raise NotFound(f"There is no charge '{new.charge_id}'.", code="charge_not_found", param="charge_id")
    if not await run_in_session(session, correct_script(new, now)):
        return False
    detail = {"charge": new.charge_id, "amount": amount_text(new.amount_nano)}
    await append(session, [_entry("credit.corrected", actor, f"transfer:{new.id}", now, detail)])
    return True


def _grant_script(grant: Grant, account_id: str, funding_id: str, now: datetime) -> Script[bool]:
    yield from lock_accounts_script({account_id, funding_id})
    terms = LotTerms(grant.id, grant.kind, grant.priority, grant.effective_at or now, grant.expires_at)
    for row in (yield Query(_RECORDED, {"id": grant.id})):
        if _same(row, grant, account_id, funding_id):
            return False
        raise Conflict(f"The lot '{grant.id}' is recorded with other content.")
    come = terms.effective_at <= now
    if come:
        posting = Posting(grant.id, funding_id, account_id, grant.amount_nano, now, grant.reason)
        if not (yield from post_script(posting)):
            return False  # granted by a version that knew no lots, which the allocator makes up for
    elif (yield Query(_NAMED_SO, {"id": grant.id})):
        raise Conflict(f"The transfer '{grant.id}' is recorded; credit that is to come needs an id of its own.")
    origin = (grant.source, grant.source_ref, grant.reason, now)
    yield from write_lots_script([NewLot(terms, account_id, funding_id, grant.id, grant.amount_nano, *origin)])
    if come:
        yield from write_entries_script([LotEntry(grant.id, 0, grant.id, LotChange.GRANT, grant.amount_nano)])
    return True


def _same(row: Sequence[Any], grant: Grant, account_id: str, funding_id: str) -> bool:
    effective_at, expires_at = read_time(row[5]), None if row[6] is None else read_time(row[6])
    content = (account_id, funding_id, str(grant.kind), grant.amount_nano, grant.priority)
    origin = (str(grant.source), grant.source_ref, grant.reason)
    asked = grant.effective_at in (None, effective_at) and grant.expires_at == expires_at
    return asked and tuple(row[:5]) == content and tuple(row[7:]) == origin


def _lot(row: LotRow, currency: str, voided_at: datetime | None) -> Lot:
    return Lot(
        row.id,
        row.account_id,
        currency,
        LotKind(row.kind),
        row.amount_nano,
        row.priority,
        row.effective_at,
        row.expires_at,
        LotSource(row.source),
        row.source_ref,
        row.replaces_lot_id,
        row.note,
        row.granted_nano,
        row.burned_nano,
        row.restored_nano,
        row.expired_nano,
        row.voided_nano,
        voided_at,
    )


def _terms(lot: Lot) -> LotTerms:
    return LotTerms(lot.id, lot.kind, lot.priority, lot.effective_at, lot.expires_at)


def _lapsed(lapse: Lapse, actor: Actor, currency: str, at: datetime) -> Entry:
    detail = {"transfer": lapse.transfer_id, "amount": amount_text(lapse.nano), "currency": currency}
    return _entry(_ACTIONS[lapse.kind], actor, f"lot:{lapse.lot_id}", at, detail)


def _entry(action: str, actor: Actor, resource: str, at: datetime, detail: dict[str, str]) -> Entry:
    # Amounts as text: a journalled number ends at 2^53, which is 9 million of a currency in nano-units.
    return Entry(action=action, actor=actor, resource=resource, outcome="done", at=at, detail=dict(detail))
