"""Which replica a request goes to: a pure choice among those that are ready."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from galerne.models import Model

__all__ = ["Replica", "Replicas", "choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One place where a model runs: an OpenAI-compatible server at `base_url` (ending in /v1), on a unix socket if one
    is given.

    `api_key` is what that server wants from us; it never shows in a log. `last_error` says why a replica is not ready.
    """

    id: str
    base_url: str
    socket: Path | None = None
    api_key: str | None = field(default=None, repr=False)
    ready: bool = True
    zone: str = ""
    last_error: str | None = None


class Replicas(Protocol):
    """Whoever knows where models run."""

    def of(self, model: Model) -> Sequence[Replica]:
        """Every replica of `model`, ready or not; must not block."""
        ...


def choose(
    replicas: Sequence[Replica], outstanding: Mapping[str, int], avoid: Collection[str] = (), seed: int = 0
) -> Replica | None:
    """The ready replica, not of `avoid`, with the fewest requests outstanding, or None. `seed` spreads ties."""
    ready = [replica for replica in replicas if replica.ready and replica.id not in avoid]
    if not ready:
        return None
    least = min(outstanding.get(replica.id, 0) for replica in ready)
    tied = [replica for replica in ready if outstanding.get(replica.id, 0) == least]
    return tied[seed % len(tied)]
