"""Gives each request a seat at a replica: at once where there is room, else after its turn in the model's queue.

The decisions are those of `routing`, `fairness` and `health`, which are pure; here are the futures and timers.
"""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from galerne.gateway.admission import Admitted
from galerne.gateway.affinity import affinity_key
from galerne.gateway.fairness import FairQueue, queue_full
from galerne.gateway.health import Failure
from galerne.gateway.metrics import GatewayMetrics, ReplicaLoad
from galerne.gateway.routing import Load, Refusal, Replica, Replicas, Wanted, choose_replica
from galerne.gateway.tally import BYTES_PER_TOKEN, Tally
from galerne.gateway.tickets import Ticket, Tier, work
from galerne.kernel import Clock, GalerneError, RateLimited, Settings, Unavailable
from galerne.models import Model

__all__ = ["Dispatcher", "Seat"]

_RETRY_WHEN_STARTING_S = 2.0
_TENANT_SHARE = 0.5
_REPLICAS_KNOWN_S = 0.1
_MOST_MODELS = 1_000
_EXPECTED_OUTPUT = 256
_FAILURES = {
    "upstream_unreachable": Failure.UNREACHABLE,
    "upstream_lost": Failure.LOST,
    "upstream_timeout": Failure.TIMED_OUT,
    "upstream_garbage": Failure.GARBAGE,
    "upstream_credentials": Failure.MISCONFIGURED,
    "upstream_lacks_model": Failure.MISCONFIGURED,
    "upstream_failed": Failure.SERVER_ERROR,
}
_BUSY_STATUSES = (429, 503)


class Seat:
    """A place at a replica that one request holds until it leaves; leaving twice is leaving once."""

    __slots__ = ("_dispatcher", "_left", "_tokens", "replica", "ticket")

    def __init__(self, dispatcher: "Dispatcher", replica: Replica, tokens: int, ticket: "_Ticket | None") -> None:
        self.replica = replica
        self.ticket = ticket
        self._dispatcher = dispatcher
        self._tokens = tokens
        self._left = False

    def answers(self) -> None:
        """The replica has begun to answer as it should."""
        self._dispatcher.succeeded(self.replica.id)

    def failed(self, error: GalerneError) -> None:
        """The replica has failed the request, if `error` is a fault of replicas at all."""
        self._dispatcher.failed(self.replica.id, error)

    def leave(self, tally: Tally) -> None:
        """Give the place to the next request; `tally` says what the work really was."""
        if not self._left:
            self._left = True
            self._dispatcher.left(self, self._tokens, tally)


class _Ticket:
    __slots__ = ("admitted", "line", "place", "seated", "tried")

    def __init__(self, admitted: Admitted, tried: Sequence[str], place: Ticket, line: "_Line") -> None:
        self.admitted = admitted
        self.tried = tried
        self.place = place
        self.line = line
        self.seated: asyncio.Future[Seat | GalerneError] = asyncio.get_running_loop().create_future()


class _Line:
    """Those who wait for the same replicas: of one model, pinned to the same zones."""

    __slots__ = ("model", "queue", "timer", "waiting")

    def __init__(self, model: Model, capacity: int) -> None:
        self.model = model
        self.queue = FairQueue(capacity, _TENANT_SHARE)
        self.waiting: dict[str, _Ticket] = {}
        self.timer: asyncio.TimerHandle | None = None


class Dispatcher:
    """Knows what this gateway has outstanding at each replica, and who waits for one."""

    def __init__(self, replicas: Replicas, settings: Settings, clock: Clock, metrics: GatewayMetrics) -> None:
        self._source = replicas
        self._health = replicas.health
        self._clock = clock
        self._now_s = clock.monotonic
        self._metrics = metrics
        self._capacity = settings.queue_capacity
        self._patience_s: Mapping[Tier, float] = {
            "priority": settings.queue_timeout_s,
            "standard": settings.queue_timeout_s,
            "batch": settings.batch_queue_timeout_s,
        }
        self._loads: dict[str, Load] = {}
        self._known: dict[tuple[str, str], tuple[Sequence[Replica], float]] = {}
        self._lines: dict[str, dict[AbstractSet[str] | None, _Line]] = {}
        metrics.watch_queue(self._depths)
        metrics.watch_replicas(self._replica_loads)

    async def take(self, admitted: Admitted, tried: Sequence[str] = ()) -> Seat:
        """A seat at a replica that is not among those `tried`, unless there is no other.

        Raises `Unavailable` (503) where none is ready, `Forbidden`-like refusals of zones as 503 too, and
        `RateLimited` (429) when the queue is full or the wait too long.
        """
        line = self._line(admitted)
        if line is None or not line.waiting:
            found = self._choose(admitted, tried)
            if found is Refusal.NONE_READY and tried:
                found = self._choose(admitted, ())
            if isinstance(found, Replica):
                return self._sit(admitted, found, None if line is None else self._pass_through(admitted, tried, line))
            if found is not Refusal.ALL_FULL:
                raise _refusal(found, admitted)
            line = line or self._new_line(admitted)
        return await self._wait(admitted, tried, line)

    def has_other(self, admitted: Admitted, tried: Sequence[str]) -> bool:
        """Whether a replica that was not tried could take the request, now or after waiting."""
        found = self._choose(admitted, tried)
        return isinstance(found, Replica) or found is Refusal.ALL_FULL

    def count_retry(self, replica_id: str) -> None:
        """Another replica is asked, because this one failed."""
        self._metrics.retried(replica_id)

    def succeeded(self, replica_id: str) -> None:
        """A replica has begun to answer."""
        self._health.succeeded(replica_id, self._now_s())

    def failed(self, replica_id: str, error: GalerneError) -> None:
        """A replica has failed a request with `error`."""
        kind = Failure.BUSY if error.status in _BUSY_STATUSES else _FAILURES.get(error.code)
        kind = Failure.UNREACHABLE if error.code == "upstream_unreachable" else kind
        if kind is None:
            return
        now_s = self._now_s()
        before = self._health.healthy(replica_id, now_s)
        self._health.failed(replica_id, now_s, kind)
        if before and not self._health.healthy(replica_id, now_s):
            self._metrics.ejected(replica_id)

    def left(self, seat: Seat, tokens: int, tally: Tally) -> None:
        """A request is done with its seat."""
        load = self._loads[seat.replica.id]
        load.requests -= 1
        load.tokens -= tokens
        if not load.requests:
            del self._loads[seat.replica.id]
        if seat.ticket is not None:
            count = tally.count() if tally.heard else None
            real = 0 if count is None else work(count.input_tokens + count.cached_tokens, count.output_tokens)
            line = seat.ticket.line
            line.queue.correct(seat.ticket.place, real)
            for each in self._lines.get(line.model.id, {}).values():
                self._seat_next(each)

    def _choose(self, admitted: Admitted, tried: Sequence[str]) -> Replica | Refusal:
        replicas = self._replicas(admitted.model)
        affinity = None
        if len(replicas) > 1:
            affinity = affinity_key(
                admitted.grant.actor.organisation_id, admitted.model.id, admitted.affinity, admitted.upstream_body
            )
        wanted = Wanted(
            zones=admitted.grant.zones,
            adapter=None if admitted.model.adapter_of is None else admitted.model.upstream_model,
            affinity=affinity,
            tokens=admitted.prompt_bytes // BYTES_PER_TOKEN,
            avoid=tried,
            seed=int(admitted.arrival.request_id[-8:], 16),
        )
        return choose_replica(replicas, self._loads, wanted, self._health.ejected(self._now_s()))

    def _replicas(self, model: Model) -> Sequence[Replica]:
        now_s, key = self._now_s(), (model.id, model.version)
        found = self._known.get(key)
        if found is None or now_s >= found[1]:
            if len(self._known) >= _MOST_MODELS:
                self._known.clear()
            found = self._known[key] = (self._source.of(model), now_s + _REPLICAS_KNOWN_S)
        return found[0]

    def _sit(self, admitted: Admitted, replica: Replica, ticket: "_Ticket | None") -> Seat:
        load = self._loads.get(replica.id)
        if load is None:
            load = self._loads[replica.id] = Load()
        tokens = admitted.prompt_bytes // BYTES_PER_TOKEN + _expected_output(admitted)
        load.requests += 1
        load.tokens += tokens
        self._health.started(replica.id, self._now_s())
        return Seat(self, replica, tokens, ticket)

    def _line(self, admitted: Admitted) -> _Line | None:
        """The line for this request, if its model's replicas have a limit at all."""
        lines = self._lines.get(admitted.model.id)
        found = None if lines is None else lines.get(admitted.grant.zones)
        if found is not None:
            return found
        if any(each.most_parallel is not None for each in self._replicas(admitted.model)):
            return self._new_line(admitted)
        return None

    def _new_line(self, admitted: Admitted) -> _Line:
        if len(self._lines) >= _MOST_MODELS:
            idle = [name for name, lines in self._lines.items() if not any(line.waiting for line in lines.values())]
            for name in idle:
                del self._lines[name]
        line = _Line(admitted.model, self._capacity)
        self._lines.setdefault(admitted.model.id, {})[admitted.grant.zones] = line
        return line

    def _ticket(self, admitted: Admitted, tried: Sequence[str], line: _Line) -> _Ticket:
        now_s = self._now_s()
        place = Ticket(
            id=f"{admitted.arrival.request_id}/{len(tried)}",
            tenant=admitted.grant.actor.organisation_id,
            weight=admitted.weight,
            tier=admitted.tier,
            work=work(admitted.prompt_bytes // BYTES_PER_TOKEN, _expected_output(admitted)),
            arrived_s=now_s,
            deadline_s=now_s + self._patience_s[admitted.tier],
        )
        return _Ticket(admitted, tried, place, line)

    def _pass_through(self, admitted: Admitted, tried: Sequence[str], line: _Line) -> _Ticket:
        """Through the queue without waiting, so that what a tenant got while there was room counts too."""
        ticket = self._ticket(admitted, tried, line)
        line.queue.push(ticket.place, ticket.place.arrived_s)
        line.queue.pop(ticket.place.arrived_s)
        return ticket

    async def _wait(self, admitted: Admitted, tried: Sequence[str], line: _Line) -> Seat:
        ticket = self._ticket(admitted, tried, line)
        began_s = ticket.place.arrived_s
        try:
            displaced = line.queue.push(ticket.place, began_s)
        except RateLimited:
            self._metrics.queue_refused("queue_full")
            raise
        if displaced is not None:
            self._refuse_place(line, displaced.id, queue_full(line.queue.retry_after_s(began_s)), "queue_full")
        line.waiting[ticket.place.id] = ticket
        self._watch_deadline(line)
        try:
            seat = await ticket.seated
        except asyncio.CancelledError:
            if line.waiting.pop(ticket.place.id, None) is not None:
                line.queue.remove(ticket.place.id)
            elif ticket.seated.done() and not ticket.seated.cancelled():
                found = ticket.seated.result()
                if isinstance(found, Seat):
                    found.leave(Tally(0, 0.0))
            raise
        if isinstance(seat, GalerneError):
            raise seat.again()
        waited_s = self._now_s() - began_s
        admitted.arrival.queued_s += waited_s
        self._metrics.waited(admitted.model.id, admitted.tier, waited_s)
        return seat

    def _seat_next(self, line: _Line) -> None:
        while line.waiting:
            first = next(iter(line.waiting.values()))
            if self._choose(first.admitted, ()) is Refusal.ALL_FULL:
                return
            place = line.queue.pop(self._now_s())
            ticket = None if place is None else line.waiting.pop(place.id, None)
            if ticket is None:
                self._expire(line)
                continue
            found = self._choose(ticket.admitted, ticket.tried)
            if isinstance(found, Refusal) and ticket.tried:
                found = self._choose(ticket.admitted, ())
            if isinstance(found, Replica):
                ticket.seated.set_result(self._sit(ticket.admitted, found, ticket))
            else:
                line.queue.correct(ticket.place, 0)
                ticket.seated.set_result(_refusal(found, ticket.admitted))

    def _watch_deadline(self, line: _Line) -> None:
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        deadline_s = line.queue.next_deadline_s
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._now_s()) + 0.001
            line.timer = asyncio.get_running_loop().call_later(delay_s, self._expire, line)

    def _expire(self, line: _Line) -> None:
        now_s = self._now_s()
        for place in line.queue.expire(now_s):
            late = RateLimited(
                "No replica of this model became free in time.",
                code="queue_timeout",
                retry_after_s=line.queue.retry_after_s(now_s),
            )
            self._refuse_place(line, place.id, late, "deadline")
        self._watch_deadline(line)

    def _refuse_place(self, line: _Line, place_id: str, error: RateLimited, reason: str) -> None:
        self._metrics.queue_refused("queue_full" if reason == "queue_full" else "deadline")
        ticket = line.waiting.pop(place_id, None)
        if ticket is not None and not ticket.seated.done():
            ticket.seated.set_result(error)

    def _depths(self) -> dict[tuple[str, str], int]:
        return {
            (name, tier): sum(line.queue.waiting(tier) for line in lines.values())
            for name, lines in self._lines.items()
            for tier in self._patience_s
        }

    def _replica_loads(self) -> dict[str, ReplicaLoad]:
        now_s = self._now_s()
        ids = {each.id for replicas, _ in self._known.values() for each in replicas}
        idle = Load()
        found = {each: self._loads.get(each, idle) for each in ids}
        return {
            each: ReplicaLoad(load.requests, load.tokens, self._health.healthy(each, now_s))
            for each, load in found.items()
        }


def _expected_output(admitted: Admitted) -> int:
    return _EXPECTED_OUTPUT if admitted.cap is None else min(admitted.cap, _EXPECTED_OUTPUT)


def _refusal(refusal: Refusal, admitted: Admitted) -> GalerneError:
    model = admitted.model.id
    if refusal is Refusal.NONE_IN_ZONE:
        zones = ", ".join(sorted(admitted.grant.zones or ()))
        return Unavailable(
            f"No replica of the model '{model}' stands where this key's requests may go ({zones or 'nowhere'}).",
            code="no_replica_in_zone",
            retry_after_s=60,
        )
    if refusal is Refusal.NONE_HOLDS_ADAPTER:
        return Unavailable(
            f"No replica holds the adapter '{model}' now.",
            code="adapter_not_loaded",
            retry_after_s=_RETRY_WHEN_STARTING_S,
        )
    return Unavailable(
        f"No replica of the model '{model}' is ready yet.", code="model_not_ready", retry_after_s=_RETRY_WHEN_STARTING_S
    )
