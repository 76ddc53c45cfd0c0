"""What the data plane counts for Prometheus; names end in their unit, labels never hold what a caller wrote.

`FAMILIES` is all of it: the reference page and the dashboard's tests are read from there. Models and replicas are named
by their ids in the catalogue, and no family has more than `MOST_CELLS` label sets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prometheus_client import CollectorRegistry

from galerne.gateway.cells import MOST_CELLS, Buckets, CellCollector, Cells, Family, Number, Readings, counting
from galerne.gateway.wire.answer import TokenCount

__all__ = ["FAMILIES", "GatewayMetrics", "LeaseKind", "LimitKind", "QueueRefusal", "ReplicaLoad"]

QueueRefusal = Literal["queue_full", "deadline"]
LimitKind = Literal["requests", "tokens", "money", "concurrent"]
LeaseKind = Literal["requests", "tokens", "money"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)
_COMMIT_SECONDS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1, 5)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

_REQUESTS = Family(
    "galerne_gateway_requests",
    "counter",
    "Requests answered; `tier` is the service tier that served them, empty for those refused before one was chosen.",
    ("endpoint", "model", "tier", "status"),
)
_TOKENS = Family(
    "galerne_gateway_tokens",
    "counter",
    "Tokens settled; `class` is `input` (computed), `cached` (input found in a cache) or `output`.",
    ("model", "class"),
)
_TTFT = Family(
    "galerne_gateway_ttft_seconds", "histogram", "Time from a request's arrival to its first token.", ("model",)
)
_PER_TOKEN = Family(
    "galerne_gateway_time_per_output_token_seconds",
    "histogram",
    "Time per output token after the first, averaged over a request.",
    ("model",),
)
_DURATION = Family(
    "galerne_gateway_duration_seconds",
    "histogram",
    "Time from a request's arrival to its settlement.",
    ("endpoint", "model"),
)
_IN_FLIGHT = Family("galerne_gateway_in_flight", "gauge", "Requests being answered.")
_CANCELLATIONS = Family(
    "galerne_gateway_upstream_cancellations", "counter", "Engine requests cancelled because the client left."
)
_QUEUE_DEPTH = Family("galerne_gateway_queue_depth", "gauge", "Requests that wait for a replica.", ("model", "tier"))
_QUEUE_WAIT = Family(
    "galerne_gateway_queue_wait_seconds",
    "histogram",
    "Time that a request waited for a replica, for those that got one.",
    ("model", "tier"),
)
_QUEUE_REFUSALS = Family(
    "galerne_gateway_queue_refusals",
    "counter",
    "Requests that the queue refused: `queue_full` at once, `deadline` after waiting.",
    ("reason",),
)
_LIMITED = Family(
    "galerne_gateway_limit_refusals",
    "counter",
    "Requests refused by a limit: `requests`, `tokens`, `money` or `concurrent`.",
    ("kind",),
)
_LEASED = Family(
    "galerne_gateway_lease_outstanding",
    "gauge",
    "Leased from the database and not yet spent: a count of requests or tokens; for `money`, nano-units of currency.",
    ("kind",),
)
_LEASES = Family(
    "galerne_gateway_lease_acquisitions", "counter", "Leases that the database granted: by `kind`.", ("kind",)
)
_LEASES_REFUSED = Family(
    "galerne_gateway_lease_refusals", "counter", "Leases that the database refused, for nothing was left.", ("kind",)
)
_REPLICA_REQUESTS = Family(
    "galerne_gateway_replica_requests", "gauge", "Requests of this gateway at a replica.", ("replica",)
)
_REPLICA_TOKENS = Family(
    "galerne_gateway_replica_tokens", "gauge", "Tokens estimated to be outstanding at a replica.", ("replica",)
)
_REPLICA_HEALTHY = Family(
    "galerne_gateway_replica_healthy", "gauge", "Whether a replica is given requests: 1, or 0.", ("replica",)
)
_EJECTIONS = Family(
    "galerne_gateway_replica_ejections", "counter", "Times that a replica was set aside as an outlier.", ("replica",)
)
_RETRIES = Family(
    "galerne_gateway_replica_retries",
    "counter",
    "Requests sent on to another replica because this one failed them before anything was sent.",
    ("replica",),
)
_WAITING = Family("galerne_gateway_settlement_waiting", "gauge", "Requests that wait for their commit.")
_FAILING = Family(
    "galerne_gateway_settlement_failing", "gauge", "Whether use cannot be recorded now, so that new work is refused."
)
_BATCH = Family("galerne_gateway_settlement_batch_size", "histogram", "Requests in one commit.")
_COMMIT = Family("galerne_gateway_settlement_seconds", "histogram", "Time of one commit.")

FAMILIES = (
    *(_REQUESTS, _TOKENS, _IN_FLIGHT, _CANCELLATIONS),
    *(_TTFT, _PER_TOKEN, _DURATION),
    *(_QUEUE_DEPTH, _QUEUE_WAIT, _QUEUE_REFUSALS, _LIMITED),
    *(_LEASED, _LEASES, _LEASES_REFUSED),
    *(_REPLICA_REQUESTS, _REPLICA_TOKENS, _REPLICA_HEALTHY, _EJECTIONS, _RETRIES),
    *(_WAITING, _FAILING, _BATCH, _COMMIT),
)
"""Every family of the data plane, in the order of the reference page."""


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What a gateway has outstanding at one replica, and whether it sends it more."""

    requests: int
    tokens: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class _OfModel:
    input_tokens: Number
    cached_tokens: Number
    output_tokens: Number
    ttft: Buckets
    per_token: Buckets
    duration: Buckets


class GatewayMetrics:
    """Every metric of one gateway, in the registry it is given.

    What happens is counted by a method; what is the case (queue, leases, replicas, settlement) is read at each scrape
    from the functions that the `watch_` methods are given, which must not block.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        in_flight, cancellations = counting(_IN_FLIGHT), counting(_CANCELLATIONS)
        self.in_flight, self.cancellations = in_flight.at(), cancellations.at()
        self._statuses: dict[tuple[str, str, str, int], Number] = {}
        self._models: dict[tuple[str, str], _OfModel] = {}
        self._requests, self._tokens = counting(_REQUESTS), counting(_TOKENS)
        self._ttft, self._per_token = _timing(_TTFT, _SECONDS), _timing(_PER_TOKEN, _TOKEN_SECONDS)
        self._duration = _timing(_DURATION, _SECONDS)
        self._queue_wait, self._queue_refusals = _timing(_QUEUE_WAIT, _SECONDS), counting(_QUEUE_REFUSALS)
        self._limited, self._leases = counting(_LIMITED), counting(_LEASES)
        self._leases_refused = counting(_LEASES_REFUSED)
        self._ejections, self._retries = counting(_EJECTIONS), counting(_RETRIES)
        batches, commits = _timing(_BATCH, _BATCHES), _timing(_COMMIT, _COMMIT_SECONDS)
        self._batch, self._commit = batches.at(), commits.at()
        self._read: dict[Family, Readings] = {
            family: Readings(family, tuple)
            for family in (_QUEUE_DEPTH, _LEASED, _REPLICA_REQUESTS, _REPLICA_TOKENS, _REPLICA_HEALTHY)
        }
        self._read |= {family: Readings(family, lambda: [((), 0)]) for family in (_WAITING, _FAILING)}
        counted = (
            *(in_flight, cancellations, self._requests, self._tokens, self._ttft, self._per_token, self._duration),
            *(self._queue_wait, self._queue_refusals, self._limited, self._leases, self._leases_refused),
            *(self._ejections, self._retries, batches, commits),
        )
        parts = sorted((*counted, *self._read.values()), key=lambda part: FAMILIES.index(part.family))
        CellCollector(parts, registry)

    def answered(self, endpoint: str, model: str, status: int, tier: str = "") -> None:
        """One request was answered; `model` is a catalogue's id, or empty when none was found."""
        found = self._statuses.get((endpoint, model, tier, status))
        if found is None:
            found = self._requests.at(endpoint, model, tier, str(status))
            if len(self._statuses) < MOST_CELLS:
                self._statuses[(endpoint, model, tier, status)] = found
        found.value += 1

    def settled(self, endpoint: str, model: str, count: TokenCount, ttft_ms: float | None, total_ms: float) -> None:
        """One request was settled."""
        of = self._models.get((endpoint, model)) or self._of(endpoint, model)
        of.input_tokens.value += count.input_tokens
        of.cached_tokens.value += count.cached_tokens
        of.output_tokens.value += count.output_tokens
        of.duration.observe(total_ms / 1000)
        if ttft_ms is not None:
            of.ttft.observe(ttft_ms / 1000)
            after_first = count.output_tokens - 1
            if after_first > 0 and total_ms >= ttft_ms:
                of.per_token.observe((total_ms - ttft_ms) / 1000 / after_first)

    def committed(self, size: int, seconds: float) -> None:
        """One commit of `size` settlements ended."""
        self._batch.observe(size)
        self._commit.observe(seconds)

    def waited(self, model: str, tier: str, wait_s: float) -> None:
        """One request got its replica after `wait_s` in the queue."""
        self._queue_wait.at(model, tier).observe(wait_s)

    def queue_refused(self, reason: QueueRefusal) -> None:
        """The queue refused one request."""
        self._queue_refusals.at(reason).value += 1

    def limited(self, kind: LimitKind) -> None:
        """A limit refused one request."""
        self._limited.at(kind).value += 1

    def lease_acquired(self, kind: LeaseKind) -> None:
        """The database granted a lease."""
        self._leases.at(kind).value += 1

    def lease_refused(self, kind: LeaseKind) -> None:
        """The database had nothing left to lease."""
        self._leases_refused.at(kind).value += 1

    def ejected(self, replica_id: str) -> None:
        """A replica was set aside as an outlier."""
        self._ejections.at(replica_id).value += 1

    def retried(self, replica_id: str) -> None:
        """A request that this replica failed was sent on to another."""
        self._retries.at(replica_id).value += 1

    def watch_queue(self, depth: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Read the queue's depth from `depth`, by model and tier."""
        self._read[_QUEUE_DEPTH].read = lambda: depth().items()

    def watch_leases(self, outstanding: Callable[[], Mapping[LeaseKind, int]]) -> None:
        """Read what is leased and unspent from `outstanding`, by kind."""
        self._read[_LEASED].read = lambda: (((kind,), amount) for kind, amount in outstanding().items())

    def watch_replicas(self, loads: Callable[[], Mapping[str, ReplicaLoad]]) -> None:
        """Read the replicas' state from `loads`, by replica id."""
        self._read[_REPLICA_REQUESTS].read = lambda: (((name,), load.requests) for name, load in loads().items())
        self._read[_REPLICA_TOKENS].read = lambda: (((name,), load.tokens) for name, load in loads().items())
        self._read[_REPLICA_HEALTHY].read = lambda: (((name,), int(load.healthy)) for name, load in loads().items())

    def watch_settlement(self, waiting: Callable[[], int], failing: Callable[[], bool]) -> None:
        """Read how many requests wait for their commit, and whether commits fail."""
        self._read[_WAITING].read = lambda: [((), waiting())]
        self._read[_FAILING].read = lambda: [((), int(failing()))]

    def _of(self, endpoint: str, model: str) -> _OfModel:
        of = _OfModel(
            self._tokens.at(model, "input"),
            self._tokens.at(model, "cached"),
            self._tokens.at(model, "output"),
            self._ttft.at(model),
            self._per_token.at(model),
            self._duration.at(endpoint, model),
        )
        if len(self._models) < MOST_CELLS:
            self._models[(endpoint, model)] = of
        return of


def _timing(family: Family, bounds: tuple[float, ...]) -> Cells[Buckets]:
    return Cells(family, partial(Buckets, bounds))
