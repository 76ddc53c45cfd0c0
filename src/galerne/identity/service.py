"""Use cases of identity: first starts, and making, listing and revoking API keys. None of them commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import (
    ROLE_PERMISSIONS,
    Actor,
    ActorKind,
    Role,
    Zones,
    check_within,
    checked_zones,
    common_zones,
)
from galerne.identity.changes import entry, plain, stored_zones
from galerne.identity.keys import (
    LONGEST_KEY,
    NewKey,
    check_new_key,
    fingerprint,
    generate_secret,
    visible_prefix,
)
from galerne.identity.organisations import find_organisation, found_organisation, operator_in
from galerne.identity.tables import ApiKey, Organisation, User
from galerne.identity.tenants import NewOrganisation
from galerne.identity.workspaces import find_workspace
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Forbidden, Ids, NotFound

_LEAST_ADMIN_KEY_LENGTH = 8


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key just made: the row that stays, and the secret that is shown this once."""

    row: ApiKey
    secret: str


async def bootstrap(session: AsyncSession, ids: Ids, clock: Clock, admin_key: str | None) -> str | None:
    """Make the first organisation, workspace, administrator and key; the key's secret comes back, once.

    None comes back when an organisation exists already: nothing is changed then. `admin_key`, if given, becomes the
    key; raises `BadRequest` if it is too short to be one.
    """
    if (await session.execute(select(Organisation.id).limit(1))).first() is not None:
        return None
    secret = generate_secret() if admin_key is None else _checked_admin_key(admin_key)
    now = clock.now()
    _, user = await found_organisation(session, NewOrganisation(name="default"), Role.INSTALLATION_ADMIN, ids, now)
    actor = _user_actor(user)
    await _store_key(session, _Owner(actor, user.id), _FIRST_KEY, secret, ids.new(), now)
    await append(
        session, [Entry(action="installation.created", actor=actor, resource="installation", outcome="done", at=now)]
    )
    return secret


async def create_organisation(
    session: AsyncSession, new: NewOrganisation, ids: Ids, clock: Clock
) -> tuple[Organisation, CreatedKey]:
    """A new organisation, and its first administrator's key, whose secret is never to be had again.

    For the operator alone. Whether `new.plan` is a plan is for the caller to know; other mistakes are `BadRequest`.
    """
    now = clock.now()
    organisation, user = await found_organisation(session, new, Role.ORGANIZATION_ADMIN, ids, now)
    secret = generate_secret()
    row = await _store_key(session, _Owner(_user_actor(user), user.id), _FIRST_KEY, secret, ids.new(), now)
    operator = await operator_in(session, organisation.id)
    detail = {"name": organisation.name, "plan": organisation.plan, "zones": plain(organisation.zones)}
    entries = [entry("created", operator, organisation, now, detail), _key_entry("api_key.created", operator, row, now)]
    await append(session, entries)
    return organisation, CreatedKey(row, secret)


async def find_installation_admin(session: AsyncSession) -> Actor:
    """The first administrator of the installation: as whom the operator acts at the command line.

    Raises `NotFound` before the first start.
    """
    user = await session.scalar(
        select(User).where(User.role == Role.INSTALLATION_ADMIN).order_by(User.created_at, User.id).limit(1)
    )
    if user is None:
        raise NotFound("This data folder has no administrator yet; run `galerne serve` once to set it up.")
    return _user_actor(user)


async def create_key(session: AsyncSession, actor: Actor, new: NewKey, ids: Ids, clock: Clock) -> CreatedKey:
    """A new API key for `actor`'s organisation, with the secret that is never to be had again.

    Its scopes may not go beyond what `actor` may do itself (`Forbidden`), its zones not beyond those of its workspace,
    its organisation and the key that makes it. Other mistakes are `BadRequest` or, for a workspace that is not the
    organisation's, `NotFound`.
    """
    now = clock.now()
    check_new_key(new, now)
    beyond = (new.scopes or frozenset()) - actor.permissions
    if beyond:
        raise Forbidden(f"You cannot grant what you do not hold: {', '.join(sorted(beyond))}.", param="scopes")
    owner = await _owner(session, actor)
    await _check_zones(session, actor, owner, new)
    secret = generate_secret()
    row = await _store_key(session, owner, new, secret, ids.new(), now)
    await append(session, [_key_entry("api_key.created", actor, row, now)])
    return CreatedKey(row, secret)


async def list_keys(session: AsyncSession, actor: Actor, *, limit: int = 100, offset: int = 0) -> Sequence[ApiKey]:
    """The organisation's API keys, newest first, revoked ones included; of one workspace for an actor bound to it."""
    query = select(ApiKey).where(ApiKey.organisation_id == actor.organisation_id)
    if actor.workspace_id is not None:
        query = query.where(ApiKey.workspace_id == actor.workspace_id)
    query = query.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit).offset(offset)
    return (await session.scalars(query)).all()


async def revoke_key(session: AsyncSession, actor: Actor, key_id: str, clock: Clock) -> ApiKey:
    """The key, revoked: gateways stop taking it within `GALERNE_KEY_STALENESS_S`. Revoking twice changes nothing.

    `key_id` may also be the visible prefix if that names exactly one key. Raises `NotFound` for any other
    organisation's key.
    """
    row = await find_key(session, actor, key_id)
    if row.revoked_at is None:
        row.revoked_at = now = clock.now()
        await append(session, [_key_entry("api_key.revoked", actor, row, now)])
    return row


@dataclass(frozen=True, slots=True)
class _Owner:
    actor: Actor
    user_id: str
    zones: Zones = None


_FIRST_KEY = NewKey(name="first administrator")


def _checked_admin_key(secret: str) -> str:
    fits = _LEAST_ADMIN_KEY_LENGTH <= len(secret) <= LONGEST_KEY
    if not fits or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise BadRequest(
            f"GALERNE_ADMIN_KEY must be {_LEAST_ADMIN_KEY_LENGTH} to {LONGEST_KEY} ASCII characters without spaces; "
            "a long random one is wise."
        )
    return secret


def _user_actor(user: User) -> Actor:
    return Actor(ActorKind.USER, user.id, user.organisation_id, None, ROLE_PERMISSIONS[Role(user.role)])


async def _store_key(
    session: AsyncSession, owner: _Owner, new: NewKey, secret: str, key_id: str, now: datetime
) -> ApiKey:
    row = ApiKey(
        id=key_id,
        organisation_id=owner.actor.organisation_id,
        workspace_id=new.workspace_id or owner.actor.workspace_id,
        user_id=owner.user_id,
        name=new.name.strip(),
        prefix=visible_prefix(secret),
        sha256=fingerprint(secret),
        scopes=sorted(owner.actor.permissions if new.scopes is None else new.scopes),
        zones=stored_zones(owner.zones if new.zones is None else new.zones),
        strict=new.strict,
        dialect=new.dialect,
        requests_per_minute=new.requests_per_minute,
        tokens_per_minute=new.tokens_per_minute,
        created_at=now,
        expires_at=new.expires_at,
        revoked_at=None,
    )
    session.add(row)
    await session.flush()
    return row


async def _check_zones(session: AsyncSession, actor: Actor, owner: _Owner, new: NewKey) -> None:
    workspace_id = new.workspace_id or actor.workspace_id
    workspace = None if workspace_id is None else await find_workspace(session, actor, workspace_id)
    organisation = await find_organisation(session, actor.organisation_id)
    ceiling = common_zones(organisation.zones, workspace and workspace.zones, owner.zones)
    check_within(checked_zones(new.zones), ceiling)


async def _owner(session: AsyncSession, actor: Actor) -> _Owner:
    if actor.kind is ActorKind.USER:
        return _Owner(actor, actor.id)
    if actor.kind is ActorKind.SYSTEM:
        return _Owner(actor, await _first_administrator(session, actor.organisation_id))
    maker = await session.get(ApiKey, actor.id)
    if maker is None:
        raise NotFound("The key that asks for this no longer exists.")
    return _Owner(actor, maker.user_id, common_zones(maker.zones))


async def _first_administrator(session: AsyncSession, organisation_id: str) -> str:
    roles = (Role.INSTALLATION_ADMIN, Role.ORGANIZATION_ADMIN)
    query = select(User.id).where(User.organisation_id == organisation_id, User.role.in_(roles))
    user_id = await session.scalar(query.order_by(User.created_at, User.id).limit(1))
    if user_id is None:
        raise NotFound("This organisation has no administrator to whom the key could belong.")
    return user_id


async def find_key(session: AsyncSession, actor: Actor, key_id: str) -> ApiKey:
    """That key of `actor`'s organisation, by its id or visible prefix; of its workspace alone if it is bound to one.

    Raises `NotFound`, or `BadRequest` for a prefix that several keys have.
    """
    query = select(ApiKey).where(
        ApiKey.organisation_id == actor.organisation_id, (ApiKey.id == key_id) | (ApiKey.prefix == key_id)
    )
    if actor.workspace_id is not None:
        query = query.where(ApiKey.workspace_id == actor.workspace_id)
    rows = (await session.scalars(query.limit(2))).all()
    if not rows:
        raise NotFound(f"There is no API key '{key_id}' here; `galerne keys list` shows what there is.", param="key_id")
    if len(rows) > 1:
        raise BadRequest(f"More than one key begins with '{key_id}'; give the key's id.", param="key_id")
    return rows[0]


def _key_entry(action: str, actor: Actor, row: ApiKey, at: datetime) -> Entry:
    detail = {
        "prefix": row.prefix,
        "scopes": " ".join(row.scopes),
        "owner": row.user_id,
        "workspace_id": row.workspace_id,
        "zones": plain(row.zones),
        "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
    }
    return Entry(action=action, actor=actor, resource=f"api_key:{row.id}", outcome="done", at=at, detail=detail)
