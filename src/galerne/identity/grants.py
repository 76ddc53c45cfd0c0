"""What a presented key grants: one read, for it is done for thousands of callers a minute."""

from datetime import datetime
from functools import lru_cache

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import ROLE_PERMISSIONS, Actor, ActorKind, Permission, Role, common_zones
from galerne.identity.keys import KeyGrant, fingerprint
from galerne.kernel import Query, Script, Unauthenticated, json_list, run_in_session, utc_time

_GRANT = """
SELECT api_keys.id, api_keys.prefix, api_keys.organisation_id, api_keys.workspace_id, api_keys.scopes, api_keys.strict,
  api_keys.dialect, api_keys.requests_per_minute, api_keys.tokens_per_minute, api_keys.expires_at, api_keys.revoked_at,
  users.role, organisations.plan, workspaces.trace_content, organisations.zones, workspaces.zones, api_keys.zones
FROM api_keys
  JOIN users ON users.id = api_keys.user_id
  JOIN organisations ON organisations.id = api_keys.organisation_id
  LEFT JOIN workspaces ON workspaces.id = api_keys.workspace_id
WHERE api_keys.sha256 = :sha256"""


def resolve_key_script(presented: str, now: datetime) -> Script[KeyGrant]:
    """What the presented key grants at `now`; raises `Unauthenticated` (401) for an unknown, revoked or expired one."""
    rows = yield Query(_GRANT, {"sha256": fingerprint(presented)})
    if not rows:
        raise Unauthenticated("This API key is not known here. Check it, or ask an administrator for a new one.")
    key_id, prefix, organisation_id, workspace_id, scopes, strict, dialect, *rest = rows[0]
    requests, tokens, expires_at, revoked_at, role, plan, trace_content, *zones = rest
    if revoked_at is not None:
        raise Unauthenticated(
            "This API key has been revoked. Ask an administrator for a new one.", code="revoked_api_key"
        )
    expires_at = None if expires_at is None else utc_time(expires_at)
    if expires_at is not None and expires_at <= now:
        raise Unauthenticated("This API key has expired. Ask an administrator for a new one.", code="expired_api_key")
    return KeyGrant(
        key_id=key_id,
        prefix=prefix,
        actor=Actor(
            ActorKind.API_KEY, key_id, organisation_id, workspace_id, _permissions(Role(role), tuple(json_list(scopes)))
        ),
        strict=bool(strict),
        dialect=dialect,
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        expires_at=expires_at,
        zones=common_zones(*map(_stored, zones)),
        plan=plan,
        trace_content=bool(trace_content),
    )


async def resolve_key(session: AsyncSession, presented: str, now: datetime) -> KeyGrant:
    """The same in a session."""
    return await run_in_session(session, resolve_key_script(presented, now))


@lru_cache(1_000)  # a gateway holds thousands of grants, and few different sets
def _permissions(role: Role, scopes: tuple[str, ...]) -> frozenset[Permission]:
    return frozenset(map(Permission, scopes)) & ROLE_PERMISSIONS[role]


def _stored(zones: str | list[str] | None) -> list[str] | None:
    return None if zones is None else json_list(zones)
