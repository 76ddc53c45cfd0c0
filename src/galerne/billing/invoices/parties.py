"""Who issues invoices and to whom they go: settings that a document freezes when it becomes final."""

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.documents.xrechnung import LEITWEG_SCHEME, is_leitweg_id
from galerne.billing.invoices.invoice import BillingProfile, Issuer
from galerne.billing.invoices.numbering import series_prefix
from galerne.billing.invoices.tables import BillingProfileRow, IssuerRow
from galerne.governance import Actor
from galerne.identity import find_organisation
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, NotFound

_MOST_DAYS = 365


async def set_issuer(session: AsyncSession, actor: Actor, issuer: Issuer, clock: Clock) -> Issuer:
    """Register a legal entity that invoices, or change it; journalled. What was issued keeps what it says.

    Raises `BadRequest` for what cannot stand on an invoice, and for another prefix once numbers were given: a series
    goes on.
    """
    _check_texts(issuer, ("id", "name", "prefix"))
    if not issuer.id.isascii() or len(issuer.id) > 20 or len(issuer.prefix) > 10:
        raise BadRequest("An issuer's id has at most 20 ASCII characters, its prefix at most 10.", param="id")
    _check_days(issuer.payment_days)
    row = await session.get(IssuerRow, issuer.id)
    body, now = _body(issuer), clock.now()
    if row is None:
        others = [_issuer(each).prefix for each in await session.scalars(select(IssuerRow))]
        own = _prefixes(issuer.prefix)
        if any(own & _prefixes(each) for each in others):
            raise BadRequest("Another issuer numbers its invoices or credit notes by that prefix.", param="prefix")
        session.add(IssuerRow(id=issuer.id, body=body, updated_at=now))
    else:
        if _issuer(row).prefix != issuer.prefix:
            raise BadRequest("An issuer's prefix stays: numbers go on without a gap.", param="prefix")
        row.body, row.updated_at = body, now
    await session.flush()
    await append(session, [_entry("invoice_issuer.set", actor, f"issuer:{issuer.id}", now)])
    return issuer


async def list_issuers(session: AsyncSession) -> list[Issuer]:
    """The legal entities that invoice, by id."""
    return [_issuer(row) for row in await session.scalars(select(IssuerRow).order_by(IssuerRow.id))]


async def find_issuer(session: AsyncSession, issuer_id: str) -> Issuer:
    """The issuer with that id; `NotFound`."""
    row = await session.get(IssuerRow, issuer_id)
    if row is None:
        raise NotFound(f"There is no issuer '{issuer_id[:40]}'; set it first.", code="issuer_not_found", param="issuer")
    return _issuer(row)


async def set_profile(session: AsyncSession, actor: Actor, profile: BillingProfile, clock: Clock) -> BillingProfile:
    """Say to whom an organisation's invoices go; journalled. Raises `NotFound` for what it names and is not there,
    `BadRequest` for what cannot stand on an invoice.
    """
    _check_texts(profile, ("name",))
    if profile.payment_days is not None:
        _check_days(profile.payment_days)
    _check_leitweg(profile)
    await find_organisation(session, profile.organisation_id)
    await find_issuer(session, profile.issuer_id)
    row = await session.get(BillingProfileRow, profile.organisation_id)
    now = clock.now()
    if row is None:
        row = BillingProfileRow(organisation_id=profile.organisation_id)
        session.add(row)
    row.issuer_id, row.body, row.updated_at = profile.issuer_id, _body(profile), now
    await session.flush()
    await append(session, [_entry("billing_profile.set", actor, f"organisation:{profile.organisation_id}", now)])
    return profile


async def find_profile(session: AsyncSession, organisation_id: str) -> BillingProfile | None:
    """To whom an organisation's invoices go; None if nobody has said so."""
    row = await session.get(BillingProfileRow, organisation_id)
    return None if row is None else msgspec.convert(row.body, BillingProfile)


async def need_profile(session: AsyncSession, organisation_id: str) -> BillingProfile:
    """As `find_profile`; raises `NotFound` where there is none."""
    profile = await find_profile(session, organisation_id)
    if profile is None:
        raise NotFound(
            f"Nobody has said to whom the invoices of organisation '{organisation_id[:40]}' go; set its billing"
            " profile first.",
            code="billing_profile_missing",
        )
    return profile


def _prefixes(prefix: str) -> set[str]:
    return {series_prefix(prefix, kind) for kind in ("invoice", "credit_note")}


def _issuer(row: IssuerRow) -> Issuer:
    return msgspec.convert(row.body, Issuer)


def _body(settings: Issuer | BillingProfile) -> dict[str, Any]:
    return msgspec.to_builtins(settings)


def _check_texts(settings: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not (1 <= len(getattr(settings, name).strip()) <= 200 and getattr(settings, name).isprintable()):
            raise BadRequest("1 to 200 printable characters.", param=name)
    address = settings.address
    if not (len(address.country) == 2 and address.country.isascii() and address.country.isupper()):
        raise BadRequest("A country is its ISO 3166-1 code, such as FR.", param="address.country")
    if not all(part.strip() for part in (address.line1, address.city, address.postcode)):
        raise BadRequest("An address has a street, a town and a postcode.", param="address")


def _check_leitweg(profile: BillingProfile) -> None:
    # Who is reached under a Leitweg-ID (EAS 0204) is a German authority, and wants one as its reference too.
    reached = profile.electronic_address
    if reached is None or reached.scheme != LEITWEG_SCHEME:
        return
    for value, param in ((reached.value, "electronic_address"), (profile.buyer_reference, "buyer_reference")):
        if value and not is_leitweg_id(value):
            raise BadRequest(f"'{value[:50]}' is no Leitweg-ID: its form or its check digits are wrong.", param=param)


def _check_days(days: int) -> None:
    if not 0 <= days <= _MOST_DAYS:
        raise BadRequest(f"An invoice is payable within 0 to {_MOST_DAYS} days.", param="payment_days")


def _entry(action: str, actor: Actor, resource: str, at: Any) -> Entry:
    return Entry(action=action, actor=actor, resource=resource, outcome="done", at=at)
