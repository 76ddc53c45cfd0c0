"""Which replica a request goes to: a pure choice of (replicas, their loads, what is wanted)."""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

import msgspec

from galerne.gateway.health import HealthBook
from galerne.models import Model

__all__ = ["Load", "Refusal", "Replica", "Replicas", "Wanted", "choose_replica"]

OVERLOADED_TIMES: Final = 2
OVERLOADED_TOKENS: Final = 16_384
"""A conversation leaves the replica that knows its beginning once that one has more tokens outstanding than
`OVERLOADED_TIMES` those of the least loaded, plus `OVERLOADED_TOKENS`, plus what it would have to read anew elsewhere.
"""

_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One place where a model runs: an OpenAI-compatible server at `base_url` (ending in /v1), on a unix socket if one
    is given.

    `api_key` is what that server wants from us; it never shows in a log. `most_parallel` is how many requests it takes
    at once, None without a limit. `serves` are the names that its own list of models has, None where that is not known.
    `last_error` says why a replica is not ready.
    """

    id: str
    base_url: str
    socket: Path | None = None
    api_key: str | None = field(default=None, repr=False)
    ready: bool = True
    zone: str = ""
    most_parallel: int | None = None
    serves: frozenset[str] | None = None
    last_error: str | None = None


class Replicas(Protocol):
    """Whoever knows where models run, and how the replicas are doing."""

    @property
    def health(self) -> HealthBook:
        """What requests and probes have seen of them."""
        ...

    def of(self, model: Model) -> Sequence[Replica]:
        """Every replica of `model`, ready or not; must not block."""
        ...


class Load(msgspec.Struct):
    """What this gateway has outstanding at one replica; whoever dispatches and settles counts it up and down."""

    requests: int = 0
    tokens: int = 0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of its replica.

    `zones`: it never leaves them; None is anywhere. `adapter`: the name that the replica must serve it under.
    `affinity`: at least 8 bytes that the turns of one conversation share (`affinity.affinity_key`). `tokens`: its
    prompt, which a replica that does not know it would have to read. `avoid`: ids of replicas tried already. `seed`
    spreads ties.
    """

    zones: AbstractSet[str] | None = None
    adapter: str | None = None
    affinity: bytes | None = None
    tokens: int = 0
    avoid: Collection[str] = ()
    seed: int = 0


class Refusal(StrEnum):
    """Why no replica can take a request now. `ALL_FULL` passes when another request ends, so waiting in a queue helps.

    `NONE_READY` also says that every ready one has been tried.
    """

    NONE_READY = "none_ready"
    NONE_IN_ZONE = "none_in_zone"
    NONE_HOLDS_ADAPTER = "none_holds_adapter"
    ALL_FULL = "all_full"


_IDLE = Load()
_NOTHING: frozenset[str] = frozenset()


def choose_replica(
    replicas: Sequence[Replica],
    loads: Mapping[str, Load],
    wanted: Wanted,
    ejected: AbstractSet[str] = _NOTHING,
) -> Replica | Refusal:
    """The replica that a request goes to, or why there is none; `ejected` are the ids that `HealthBook` holds back.

    Among those that are ready, healthy, in zone, not full, not tried, and hold the adapter: the one that rendezvous
    hashing (Thaler & Ravishankar, 1998) gives its conversation, unless that one is overloaded; then the one with the
    fewest tokens outstanding. Every gateway comes to the same choice without asking the others.
    """
    if len(replicas) == 1:
        only = replicas[0]
        load = loads.get(only.id, _IDLE)
        full = only.most_parallel is not None and load.requests >= only.most_parallel
        if (
            only.ready
            and not full
            and (wanted.zones is None or only.zone in wanted.zones)
            and (wanted.adapter is None or only.serves is None or wanted.adapter in only.serves)
            and only.id not in wanted.avoid
            and only.id not in ejected
        ):
            return only
    usable = _usable(replicas, wanted, ejected)
    if isinstance(usable, Refusal):
        return usable
    free = [(each, loads.get(each.id, _IDLE)) for each in usable]
    free = [(each, load) for each, load in free if each.most_parallel is None or load.requests < each.most_parallel]
    if not free:
        return Refusal.ALL_FULL
    least = min(load.tokens for _, load in free)
    if wanted.affinity is not None:
        preferred, load = _preferred(free, wanted.affinity)
        if load.tokens <= OVERLOADED_TIMES * least + OVERLOADED_TOKENS + wanted.tokens:
            return preferred
    tied = [each for each, load in free if load.tokens == least]
    return tied[wanted.seed % len(tied)]


def _usable(replicas: Sequence[Replica], wanted: Wanted, ejected: AbstractSet[str]) -> list[Replica] | Refusal:
    zones, avoid, adapter = wanted.zones, wanted.avoid, wanted.adapter
    near = replicas if zones is None else [each for each in replicas if each.zone in zones]
    if replicas and not near:
        return Refusal.NONE_IN_ZONE
    ready = [each for each in near if each.ready and each.id not in ejected and each.id not in avoid]
    if not ready:
        return Refusal.NONE_READY
    if adapter is None:
        return ready
    # A server that does not list its models may hold the adapter; it is asked where none is known to.
    holding = [each for each in ready if each.serves is not None and adapter in each.serves]
    return holding or [each for each in ready if each.serves is None] or Refusal.NONE_HOLDS_ADAPTER


def _preferred(free: Sequence[tuple[Replica, Load]], affinity: bytes) -> tuple[Replica, Load]:
    key = int.from_bytes(affinity[:8])
    best, highest = free[0], -1
    for each in free:
        # The finaliser of MurmurHash3 (public domain): both halves of the weight depend on every bit of both ids.
        weight = ((key ^ _point(each[0].id)) * 0xFF51AFD7ED558CCD) & _MASK
        weight = ((weight ^ (weight >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
        weight ^= weight >> 33
        if weight > highest:
            best, highest = each, weight
    return best


@lru_cache(maxsize=4096)
def _point(replica_id: str) -> int:
    return int.from_bytes(blake2b(replica_id.encode(), digest_size=8).digest())
