"""HTTP for replicas: where models run, and whom the process that answers holds back because of failures."""

import os
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Request
from pydantic import BaseModel

from galerne.gateway import Failure, Gateway, HealthState, Replica, ReplicaHealth
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel.web import Reading, RequestClock
from galerne.models import list_models

router = APIRouter(prefix="/v1/admin/replicas", tags=["Models"])

Operator = Annotated[Actor, requires(Permission.MODELS_MANAGE)]


class ReplicaOut(BaseModel):
    """One place where models run, as this process sees it; `address` is null for an engine of this installation.

    `ready`: whether it may be asked at all, else `last_error` says why not. `state`, `ejections` in a row,
    `last_failure`, and the `requests` of the last 10 to 20 seconds with their `failures` are null and 0 for one that
    was neither asked nor probed yet. `lists` are the models that it says it has, null where it does not tell.
    """

    object: Literal["replica"]
    id: str
    models: list[str]
    address: str | None
    zone: str
    ready: bool
    last_error: str | None
    state: HealthState | None
    ejections: int
    last_failure: Failure | None
    requests: int
    failures: int
    lists: list[str] | None


class ReplicaList(BaseModel):
    """The replicas of every model, by id, as the process `process` sees them: each keeps its own book."""

    object: Literal["list"]
    process: int
    data: list[ReplicaOut]


@router.get("")
async def list_replicas(_actor: Operator, session: Reading, clock: RequestClock, request: Request) -> ReplicaList:
    """List where models run and how each place is doing, as the process that answers has seen it."""
    replicas = cast(Gateway, request.app.state.gateway).replicas
    models = await list_models(session)
    health = {each.id: each for each in replicas.health.snapshot(clock.monotonic())}
    places, named = dict[str, tuple[Replica, bool]](), dict[str, list[str]]()
    for model in models:
        for replica in replicas.of(model):
            places[replica.id] = replica, bool(model.addresses)
            named.setdefault(replica.id, []).append(model.id)
    data = [_shown(*places[each], named[each], health.get(each)) for each in sorted(places)]
    return ReplicaList(object="list", process=os.getpid(), data=data)


def _shown(replica: Replica, elsewhere: bool, models: list[str], health: ReplicaHealth | None) -> ReplicaOut:
    # Field by field: a replica also holds the key that its server wants from us.
    return ReplicaOut(
        object="replica",
        id=replica.id,
        models=sorted(models),
        address=replica.base_url if elsewhere else None,
        zone=replica.zone,
        ready=replica.ready,
        last_error=replica.last_error,
        state=None if health is None else health.state,
        ejections=0 if health is None else health.ejections,
        last_failure=None if health is None else health.last_failure,
        requests=0 if health is None else health.requests,
        failures=0 if health is None else health.failures,
        lists=None if health is None or health.serves is None else sorted(health.serves),
    )
