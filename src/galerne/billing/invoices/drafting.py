"""What an organisation's month comes to: rated usage and charges collected into drafts, one a currency.

Collecting reads, writing a draft is short: on SQLite nobody waits for somebody's million requests to be added up. What
a closed month bills no longer changes, so the two may be apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.charges import Charge, Period
from galerne.billing.contracts import ContractVersion, charges_of_contract, contract_usage, list_contracts
from galerne.billing.documents.vat import Language
from galerne.billing.invoices.invoice import InvoiceLine
from galerne.billing.invoices.lines import (
    carried_line,
    charge_line,
    nano_of_minor,
    settling_line,
    span_of,
    usage_line,
)
from galerne.billing.invoices.month_requests import MonthKnown, Requests
from galerne.billing.invoices.tables import InvoiceChargeRow, InvoiceRow
from galerne.billing.invoices.usage import first_billed, rated_leaves
from galerne.billing.invoices.wording import words
from galerne.billing.prices.pricing import PPM, half_even
from galerne.billing.rating.tables import UsageRatingRow
from galerne.billing.rating.usage_lines import UsageLine, usage_lines
from galerne.billing.subscriptions import organisation_charges
from galerne.governance import SYSTEM
from galerne.journal import EMPTY_ROOT, hash_leaf
from galerne.kernel import invariant
from galerne.ledger import AccountKind, accounts_of, settled_by

_CONTRACT_USE = ("usage", "overage")
_PAGE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthDraft:
    """What an organisation's month comes to in one currency, not written yet.

    `missing` is what a preview says has to be set before it can become final.
    """

    organisation_id: str
    period: str
    currency: str
    lines: tuple[InvoiceLine, ...]
    charges: Mapping[str, int]
    usage_root: bytes
    usage_size: int
    missing: tuple[str, ...] = ()


@dataclass(slots=True)
class _Usage:
    lines: list[UsageLine] = field(default_factory=list[UsageLine])
    requests: Requests = field(default_factory=Requests)


async def collect_month(
    session: AsyncSession,
    organisation_id: str,
    period: str,
    until: datetime,
    language: Language,
    known: MonthKnown | None = None,
) -> list[MonthDraft]:
    """The month's drafts, by currency: rated usage that is billed in it, and what has become due before `until`.

    `known` is what was found out of all customers' requests before; otherwise this one's are walked over now.

    Reads only. What was billed before is left out, by each charge's id and amount: of one that has grown since, the
    difference is billed.
    """
    span = span_of(period)
    usage = await _usage(session, organisation_id, period, known)
    contracts = await list_contracts(session, organisation_id)
    billed = await _billed(session, organisation_id)
    open_ = [
        (charge, rest)
        for charge in await _charges(session, organisation_id, until)
        if (rest := charge.amount_nano - billed.get(charge.id, 0))
    ]
    carried = [each for each in await _carried(session, organisation_id) if each[0] not in billed]
    currencies = {*usage, *(charge.currency for charge, _ in open_), *(each[2] for each in carried)}
    drafts: list[MonthDraft] = []
    for currency in sorted(currencies):
        mine = usage.get(currency, _Usage())
        used = [usage_line(each, language) for each in mine.lines]
        own = [(charge, rest) for charge, rest in open_ if charge.currency == currency]
        under = _under(contracts, currency, span)
        lines = [*used, *_settled(used, (own, under), mine.requests.by_credit_nano, (span, language, currency))]
        lines += [charge_line(charge, rest) for charge, rest in own if not (under and charge.kind in _CONTRACT_USE)]
        gone = [(name, nano, month) for name, nano, unit, month in carried if unit == currency]
        lines += [carried_line(nano, span, language, month) for _, nano, month in gone]
        if lines:
            charges = {charge.id: rest for charge, rest in own} | {name: nano for name, nano, _ in gone}
            tree = mine.requests.tree
            found = MonthDraft(
                organisation_id=organisation_id,
                period=period,
                currency=currency,
                lines=tuple(lines),
                charges=charges,
                usage_root=tree.root() if tree.size else EMPTY_ROOT,
                usage_size=tree.size,
            )
            drafts.append(found)
    return drafts


def _settled(
    used: Sequence[InvoiceLine],
    contract: tuple[Sequence[tuple[Charge, int]], list[ContractVersion]],
    by_credit_nano: int,
    how: tuple[Period, Language, str],
) -> list[InvoiceLine]:
    span, language, currency = how
    charges, under = contract
    lines: list[InvoiceLine] = []
    if under:
        due = sum(rest for charge, rest in charges if charge.kind in _CONTRACT_USE)
        surcharge = sum(_surcharge(charge, rest, under) for charge, rest in charges if charge.kind == "overage")
        exact = due - surcharge - sum(line.exact_nano for line in used)
        kind = "covered" if exact < 0 else "contract_usage"
        line = settling_line(used, (kind, words(language, kind)), exact, span, currency)
        lines += [line] if line else []
        if surcharge:
            text = words(language, "surcharge")
            line = settling_line([*used, *lines], ("overage", text), surcharge, span, currency)
            lines += [line] if line else []
    if by_credit_nano:
        text = words(language, "paid_by_credit")
        line = settling_line([*used, *lines], ("paid_by_credit", text), -by_credit_nano, span, currency)
        lines += [line] if line else []
    return lines


async def _usage(
    session: AsyncSession, organisation_id: str, period: str, known: MonthKnown | None
) -> dict[str, _Usage]:
    if known is None:
        requests = await _requests(session, organisation_id, period)
    else:
        requests = known.requests.get(organisation_id, {})
    usage = {currency: _Usage(requests=each) for currency, each in requests.items()}
    rates = None if known is None else known.rates
    for line in await usage_lines(session, organisation_id, period, rates):
        usage.setdefault(line.currency, _Usage()).lines.append(line)
    for currency, each in usage.items():
        hours, nano = sum(line.requests_nano for line in each.lines), each.requests.nano
        invariant(hours == nano, f"{period} {organisation_id} {currency}: requests {nano}, hours {hours}")
    return usage


async def _requests(session: AsyncSession, organisation_id: str, period: str) -> dict[str, Requests]:
    accounts = await accounts_of(session, organisation_id)
    prepaid = {each.account.currency: each.account.id for each in accounts if each.account.kind is AccountKind.PREPAID}
    found: dict[str, Requests] = {}
    revised = await _revised(session, organisation_id, period) if prepaid else set[str]()
    async for leaves in rated_leaves(session, organisation_id, period):
        names: dict[str, set[str]] = {}
        for leaf in leaves:
            found.setdefault(leaf.currency, Requests()).add(leaf.nano, [hash_leaf(leaf.encoded())])
            names.setdefault(leaf.currency, set()).add(leaf.event_id)
        for currency in names.keys() & prepaid.keys():
            fresh = await first_billed(session, period, names[currency] - revised)
            found[currency].by_credit_nano += await settled_by(session, prepaid[currency], fresh)
    # What was taken back in the month that billed it has no leaf, and was paid all the same.
    names_of_revised = sorted(revised)
    for start in range(0, len(names_of_revised), _PAGE):
        fresh = await first_billed(session, period, set(names_of_revised[start : start + _PAGE]))
        for currency, account_id in prepaid.items():
            if paid_nano := await settled_by(session, account_id, fresh):
                found.setdefault(currency, Requests()).by_credit_nano += paid_nano
    return found


async def _revised(session: AsyncSession, organisation_id: str, period: str) -> set[str]:
    row = UsageRatingRow
    query = select(row.event_id).where(row.organisation_id == organisation_id, row.period == period, row.revision > 0)
    return set(await session.scalars(query))


async def _billed(session: AsyncSession, organisation_id: str) -> dict[str, int]:
    row = InvoiceChargeRow
    query = select(row.charge_id, func.sum(row.nano)).where(row.organisation_id == organisation_id)
    return {name: int(nano) for name, nano in await session.execute(query.group_by(row.charge_id))}


async def _charges(session: AsyncSession, organisation_id: str, until: datetime) -> list[Charge]:
    charges = list(await organisation_charges(session, organisation_id, until))
    actor = replace(SYSTEM, organisation_id=organisation_id)
    for contract in await list_contracts(session, organisation_id):
        used = await contract_usage(session, actor, contract.contract_id, until)
        found = await charges_of_contract(session, actor, contract.contract_id, used)
        charges += [charge for charge in found if charge.due_at < until]
    return charges


def _under(contracts: Sequence[ContractVersion], currency: str, span: Period) -> list[ContractVersion]:
    return [
        each
        for each in contracts
        if (each.signed_at is not None or each.version > 1)
        and each.terms.currency == currency
        and each.terms.start < span.end
        and each.terms.end > span.start
    ]


def _surcharge(charge: Charge, nano: int, contracts: Sequence[ContractVersion]) -> int:
    """What of overage is more than its usage was worth."""
    ppm = next((each.terms.overage_ppm for each in contracts if charge.id.startswith(f"{each.contract_id}:")), PPM)
    return nano - half_even(nano * PPM, ppm) if ppm else nano


async def _carried(session: AsyncSession, organisation_id: str) -> list[tuple[str, int, str, str]]:
    row = InvoiceRow
    query = select(row.id, row.net_minor, row.currency, row.period).where(
        row.organisation_id == organisation_id, row.state == "empty", row.net_minor < 0
    )
    return [
        (f"carried:{name}", nano_of_minor(minor or 0, currency), currency, period or "")
        for name, minor, currency, period in await session.execute(query.order_by(row.id))
    ]
