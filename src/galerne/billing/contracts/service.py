"""Use cases of contracts: drafting, seeing what an amendment costs, signing, renewing. None of them commits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.charges import Charge, Period
from galerne.billing.contracts.drawdown import Version, contract_charges
from galerne.billing.contracts.effect import Effect, effect_of
from galerne.billing.contracts.tables import ContractRow, ContractSignatureRow, ContractVersionRow
from galerne.billing.contracts.terms import ContractTerms, check_amendment, check_terms, renewed
from galerne.governance import SYSTEM, Actor, Permission, require
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Ids, NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractVersion:
    """One version of a contract; it counts once it is signed (`signed_at`), from `effective_from` on."""

    contract_id: str
    organisation_id: str
    name: str
    version: int
    effective_from: datetime
    terms: ContractTerms
    sha256: str
    signed_by: str | None
    signed_at: datetime | None


async def draft_contract(
    session: AsyncSession, actor: Actor, name: str, terms: ContractTerms, ids: Ids, clock: Clock
) -> ContractVersion:
    """A new contract with `actor`'s organisation, not signed yet, journalled; `BadRequest` for terms that cannot be."""
    require(actor, Permission.PRICES_MANAGE)
    check_terms(terms)
    if not (1 <= len(name.strip()) <= 200 and name.isprintable()):
        raise BadRequest("A name has 1 to 200 printable characters.", param="name")
    now = clock.now()
    row = ContractRow(id=ids.new(), organisation_id=actor.organisation_id, name=name.strip(), created_at=now)
    session.add(row)
    await session.flush()
    return await _draft(session, actor, row, 1, Version(terms.start, terms), now)


async def amend_contract(
    session: AsyncSession, actor: Actor, contract_id: str, proposed: Version, clock: Clock
) -> ContractVersion:
    """A draft of other terms from then on; nothing changes until it is signed."""
    require(actor, Permission.PRICES_MANAGE)
    found = await contract_versions(session, actor, contract_id, lock=True)
    signed = _signed(found)
    check_terms(proposed.terms)
    if signed:
        check_amendment(signed[-1].terms, proposed.terms, proposed.effective_from)
    else:
        proposed = Version(proposed.terms.start, proposed.terms)
    row = await _row(session, actor, contract_id)
    return await _draft(session, actor, row, found[-1].version + 1, proposed, clock.now())


async def preview_amendment(
    session: AsyncSession,
    actor: Actor,
    contract_id: str,
    proposed: Version,
    usage: tuple[Mapping[Period, int], int],
) -> Effect:
    """What other terms would cost, for the usage by month that there was and what is expected in each month to come.

    Nothing is written. `Conflict` for a contract that nobody signed.
    """
    signed = _signed(await contract_versions(session, actor, contract_id))
    if not signed:
        raise Conflict("Nothing is signed yet; a draft is replaced, not amended.", code="contract_unsigned")
    return effect_of(signed, proposed.terms, proposed.effective_from, *usage)


async def sign_contract(
    session: AsyncSession, actor: Actor, contract_id: str, signature: tuple[int, str, str], clock: Clock
) -> ContractVersion:
    """The version that `signature` (version, SHA-256 of its terms, who signs) names, signed.

    The hash is that of the draft: nobody signs what they were not shown (`Conflict`). Only the newest draft can be
    signed, an amendment not after it was to take effect, and no term over that of another contract in its currency
    (`Conflict`, `contract_overlaps`). Signing twice changes nothing.
    """
    require(actor, Permission.BILLING_MANAGE)
    number, sha256, signer = signature
    found = await contract_versions(session, actor, contract_id, lock=True)
    wanted = next((each for each in found if each.version == number), None)
    if wanted is None:
        raise NotFound("There is no such version of this contract.", code="contract_not_found", param="version")
    if wanted.sha256 != sha256:
        raise Conflict("These are not the terms of that version; look at them again.", code="terms_differ")
    if wanted.signed_at is not None:
        return wanted
    if wanted is not found[-1]:
        raise Conflict("There is a newer draft.", code="draft_replaced", param="version")
    now, signed = clock.now(), _signed(found)
    if signed:
        check_amendment(signed[-1].terms, wanted.terms, wanted.effective_from)
        if wanted.effective_from < now:
            raise Conflict("It was to take effect before now; draft it again.", code="draft_too_old")
    await _check_alone(session, wanted)
    return await _sign(session, actor, wanted, signer, now)


async def renew_due(session: AsyncSession, clock: Clock) -> int:
    """Renew the contracts whose term is over and that renew themselves; how many there were. Safe at any time."""
    names = list(await session.scalars(select(ContractRow.id).order_by(ContractRow.id).with_for_update()))
    return sum([await renew_contract(session, name, clock) for name in names])


async def contracts_to_renew(session: AsyncSession, clock: Clock) -> list[str]:
    """The ids of the contracts whose term is over by now and that renew themselves, for `renew_contract`."""
    due: list[str] = []
    for name, organisation_id in await session.execute(select(ContractRow.id, ContractRow.organisation_id)):
        actor = replace(SYSTEM, organisation_id=organisation_id)
        if _to_renew(_signed(await contract_versions(session, actor, name)), clock.now()):
            due.append(name)
    return sorted(due)


async def renew_contract(session: AsyncSession, contract_id: str, clock: Clock) -> int:
    """Renew a contract for as long as its term is over and it renews itself; how often. Safe at any time."""
    row = await session.get_one(ContractRow, contract_id, with_for_update=True)
    actor = replace(SYSTEM, organisation_id=row.organisation_id)
    now, done = clock.now(), 0
    found = await contract_versions(session, actor, contract_id)
    while _to_renew(_signed(found), now):
        last = _signed(found)[-1].terms
        draft = await _draft(session, actor, row, found[-1].version + 1, Version(last.end, renewed(last)), now)
        await _sign(session, actor, draft, "renewal", now)
        found = await contract_versions(session, actor, contract_id)
        done += 1
    return done


def _to_renew(signed: Sequence[Version], now: datetime) -> bool:
    return bool(signed) and signed[-1].terms.renewal is not None and signed[-1].terms.end <= now


async def charges_of_contract(
    session: AsyncSession, actor: Actor, contract_id: str, usage: Mapping[Period, int]
) -> list[Charge]:
    """Every charge of the contract's whole term for that usage by month; none before it is signed."""
    signed = _signed(await contract_versions(session, actor, contract_id))
    return contract_charges(contract_id, signed, usage) if signed else []


async def contract_versions(
    session: AsyncSession, actor: Actor, contract_id: str, *, lock: bool = False
) -> list[ContractVersion]:
    """A contract's versions, oldest first; `NotFound` for one that is not of `actor`'s organisation."""
    version, signature = ContractVersionRow, ContractSignatureRow
    row = await _row(session, actor, contract_id, lock=lock)
    signatures = {
        each.version: each
        for each in await session.scalars(select(signature).where(signature.contract_id == contract_id))
    }
    query = select(version).where(version.contract_id == contract_id).order_by(version.version)
    return [_version(row, each, signatures.get(each.version)) for each in await session.scalars(query)]


async def list_contracts(session: AsyncSession, organisation_id: str | None) -> list[ContractVersion]:
    """The newest version of each contract, of one organisation or, for the operator alone, of all."""
    query = select(ContractRow).order_by(ContractRow.created_at, ContractRow.id)
    if organisation_id is not None:
        query = query.where(ContractRow.organisation_id == organisation_id)
    found: list[ContractVersion] = []
    for row in list(await session.scalars(query)):
        actor = replace(SYSTEM, organisation_id=row.organisation_id)
        found.append((await contract_versions(session, actor, row.id))[-1])
    return found


async def _check_alone(session: AsyncSession, wanted: ContractVersion) -> None:
    """Usage is charged under one contract: those of one organisation and currency do not overlap."""
    actor, terms = replace(SYSTEM, organisation_id=wanted.organisation_id), wanted.terms
    query = select(ContractRow.id).where(ContractRow.organisation_id == wanted.organisation_id)
    # Locked: of two that are signed at once the second sees the first.
    for name in list(await session.scalars(query.order_by(ContractRow.id).with_for_update())):
        if name == wanted.contract_id:
            continue
        signed = _signed(await contract_versions(session, actor, name))
        other = signed[-1].terms if signed else None
        if other and other.currency == terms.currency and other.start < _last(terms) and terms.start < _last(other):
            raise Conflict(
                f"From {other.start:%Y-%m-%d} to {other.end:%Y-%m-%d} another contract in {other.currency} is signed"
                f"{', which renews itself' if other.renewal else ''}, and usage is charged once; amend that one.",
                code="contract_overlaps",
                param="start",
            )


def _last(terms: ContractTerms) -> datetime:
    return terms.end if terms.renewal is None else datetime.max.replace(tzinfo=UTC)


def _signed(found: list[ContractVersion]) -> list[Version]:
    return [Version(each.effective_from, each.terms) for each in found if each.signed_at is not None]


async def _row(session: AsyncSession, actor: Actor, contract_id: str, *, lock: bool = False) -> ContractRow:
    query = select(ContractRow).where(
        ContractRow.id == contract_id, ContractRow.organisation_id == actor.organisation_id
    )
    row = await session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound("This organisation has no such contract.", code="contract_not_found")
    return row


async def _draft(
    session: AsyncSession, actor: Actor, row: ContractRow, number: int, proposed: Version, now: datetime
) -> ContractVersion:
    body = msgspec.to_builtins(proposed.terms)
    version = ContractVersionRow(
        contract_id=row.id,
        version=number,
        effective_from=proposed.effective_from,
        terms=body,
        sha256=hashlib.sha256(msgspec.json.encode([proposed.effective_from, body], order="sorted")).hexdigest(),
        created_at=now,
    )
    session.add(version)
    await session.flush()
    made = _version(row, version, None)
    await append(session, [_entry("drafted", actor, made, now)])
    return made


async def _sign(
    session: AsyncSession, actor: Actor, draft: ContractVersion, signer: str, now: datetime
) -> ContractVersion:
    if not (1 <= len(signer.strip()) <= 200 and signer.isprintable()):
        raise BadRequest("Say who signs, in 1 to 200 printable characters.", param="signed_by")
    session.add(
        ContractSignatureRow(
            contract_id=draft.contract_id, version=draft.version, signed_by=signer.strip(), signed_at=now
        )
    )
    await session.flush()
    signed = replace(draft, signed_by=signer.strip(), signed_at=now)
    await append(session, [_entry("signed", actor, signed, now)])
    return signed


def _version(row: ContractRow, version: ContractVersionRow, signature: ContractSignatureRow | None) -> ContractVersion:
    return ContractVersion(
        contract_id=row.id,
        organisation_id=row.organisation_id,
        name=row.name,
        version=version.version,
        effective_from=version.effective_from,
        terms=msgspec.convert(version.terms, ContractTerms),
        sha256=version.sha256,
        signed_by=None if signature is None else signature.signed_by,
        signed_at=None if signature is None else signature.signed_at,
    )


def _entry(action: str, actor: Actor, version: ContractVersion, at: datetime) -> Entry:
    detail = {
        "version": version.version,
        "sha256": version.sha256,
        "effective_from": version.effective_from.isoformat(),
        "committed_nano": str(sum(each.nano for each in version.terms.commitments)),
        "currency": version.terms.currency,
    }
    resource = f"contract:{version.contract_id}"
    return Entry(action=f"contract.{action}", actor=actor, resource=resource, outcome="done", at=at, detail=detail)
