"""HTTP for the journal, at the path and with the words of Mistral's published admin API."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from galerne.governance import Actor, ActorKind, Permission
from galerne.governance.access import requires
from galerne.journal import LeafFilter, Outcome, StoredLeaf, read
from galerne.kernel.web import Position, Reading, Text

router = APIRouter(tags=["Journal"])

ActorType = Literal["HUMAN", "API_KEY", "OTHER"]

_KINDS: dict[ActorType, ActorKind] = {"HUMAN": ActorKind.USER, "API_KEY": ActorKind.API_KEY, "OTHER": ActorKind.SYSTEM}
_TYPES: dict[str, ActorType] = {kind: name for name, kind in _KINDS.items()}


class AuditLogQuery(BaseModel):
    """Which entries; `after` and `before` are sequence numbers, exclusive. Lists are repeated, with or without `[]`."""

    model_config = ConfigDict(extra="forbid")

    actor_type: list[ActorType] = Field([], validation_alias=AliasChoices("actor_type", "actor_type[]"))
    event_type: list[Text] = Field([], validation_alias=AliasChoices("event_type", "event_type[]"))
    after: Position | None = None
    before: Position | None = None
    sort: Literal["asc", "desc"] = Field("desc", description="`desc`: newest first.")
    limit: int = Field(20, ge=1, le=1000)


class ActorMetadata(BaseModel):
    """Who acted."""

    id: str
    kind: str


class AuditLogOut(BaseModel):
    """One leaf of the journal: `leaf` is the exact text that was hashed, the hashes are hexadecimal SHA-256."""

    log_id: str
    seq: int
    created_at: datetime
    actor_type: ActorType
    actor_metadata: ActorMetadata
    event_type: str
    event_metadata: dict[str, str | int | bool | None]
    target: str
    outcome: Outcome
    request_id: str | None
    organization_uuid: str
    workspace_uuid: str | None
    leaf: str
    leaf_hash: str
    chain_hash: str


class AuditLogPage(BaseModel):
    """A page of entries; the next one is `before` (or, oldest first, `after`) = `last_seq`."""

    object: Literal["list"]
    data: list[AuditLogOut]
    has_more: bool
    last_seq: int | None


@router.get("/v1/admin/audit-logs")
async def read_audit_logs(
    query: Annotated[AuditLogQuery, Query()],
    actor: Annotated[Actor, requires(Permission.JOURNAL_READ)],
    session: Reading,
) -> AuditLogPage:
    """What happened in this organisation (in this workspace, for a key that belongs to one)."""
    wanted = LeafFilter(
        actions=query.event_type,
        actor_kinds=[_KINDS[name] for name in query.actor_type],
        workspace_id=actor.workspace_id,
        after=query.after,
        before=query.before,
        oldest_first=query.sort == "asc",
    )
    leaves = await read(session, actor.organisation_id, wanted, query.limit + 1)
    page = leaves[: query.limit]
    return AuditLogPage(
        object="list",
        data=[_out(leaf) for leaf in page],
        has_more=len(leaves) > query.limit,
        last_seq=page[-1].seq if page else None,
    )


def _out(stored: StoredLeaf) -> AuditLogOut:
    return AuditLogOut(
        log_id=str(stored.seq),
        seq=stored.seq,
        created_at=stored.at,
        actor_type=_TYPES.get(stored.actor_kind, "OTHER"),
        actor_metadata=ActorMetadata(id=stored.actor_id, kind=stored.actor_kind),
        event_type=stored.action,
        event_metadata=stored.detail,
        target=stored.resource,
        outcome=stored.outcome,
        request_id=stored.request_id,
        organization_uuid=stored.organisation_id,
        workspace_uuid=stored.workspace_id,
        leaf=stored.leaf.decode(),
        leaf_hash=stored.leaf_hash.hex(),
        chain_hash=stored.chain_hash.hex(),
    )
