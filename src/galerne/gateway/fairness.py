"""Who is next when a model's replicas are full: the bounded waiting queue of one model, as a pure policy.

It knows no clock and no sockets: every function is told the moment. Every request passes through, also while replicas
have room (a push and at once a pop), so that what a tenant got then counts too. Tenants are told apart by what was
authenticated, never by what a caller wrote: see `Ticket`.

Each ticket that was pushed ends exactly once: popped, removed, displaced by a later push, or expired.
"""

from galerne.gateway.drain import Drain
from galerne.gateway.ranking import Ranking
from galerne.gateway.tickets import TIERS, Ticket, Tier, work
from galerne.gateway.virtual_token_counter import VirtualTokenCounter
from galerne.kernel import RateLimited, invariant

__all__ = ["LOWER_TIER_TURN", "TIERS", "FairQueue", "Ticket", "Tier", "queue_full", "work"]

LOWER_TIER_TURN = 16
_PATIENCE = LOWER_TIER_TURN - len(TIERS) + 1  # two tiers may be owed a turn at once
_LEAST_RETRY_S, _MOST_RETRY_S = 1.0, 60.0


def queue_full(retry_after_s: float) -> RateLimited:
    """The answer (429) for whoever found no place, or lost it to a request of a higher tier or a smaller tenant."""
    return RateLimited(
        f"Too many requests wait for this model. Try again in {retry_after_s:.0f} s.",
        code="queue_full",
        retry_after_s=retry_after_s,
    )


class FairQueue:
    """At most `capacity` tickets, of which one tenant holds at most `per_tenant_share` once others wait too.

    Tiers go strictly in order, but of any 16 dispatches in a row (`LOWER_TIER_TURN`) at least one is of each tier that
    waits throughout. Within a tier tenants share by work done and weight (`VirtualTokenCounter`), within a tenant the
    first comes first. Everything but `position` costs O(log n) amortised.
    """

    def __init__(self, capacity: int, per_tenant_share: float, remembered: int = 1_000) -> None:
        invariant(capacity >= 1 and 0 < per_tenant_share <= 1, "a queue has places, and a tenant a share of them")
        self.capacity = capacity
        self.per_tenant = max(1, int(capacity * per_tenant_share))
        self._tiers: dict[Tier, VirtualTokenCounter] = {tier: VirtualTokenCounter(remembered) for tier in TIERS}
        self._passed_over: dict[Tier, int] = dict.fromkeys(TIERS, 0)
        self._tickets: dict[str, Ticket] = {}
        self._held: dict[str, int] = {}
        self._crowding: str | None = None  # only who was alone could take more than its share
        self._deadlines: Ranking[str] = Ranking()
        self._expired: list[Ticket] = []
        self._drain = Drain()

    def __len__(self) -> int:
        return len(self._tickets)

    def waiting(self, tier: Tier) -> int:
        """How many tickets of `tier` wait."""
        return len(self._tiers[tier])

    @property
    def next_deadline_s(self) -> float | None:
        """When the next ticket expires, if any waits."""
        first = self._deadlines.first()
        return None if first is None else self._tickets[first].deadline_s

    def push(self, ticket: Ticket, now_s: float) -> Ticket | None:
        """Let `ticket` wait; raises `RateLimited` (`queue_full`) when there is no place for it.

        Returns the ticket that lost its place for this one, if any: it has to be told (`queue_full`). In a full queue
        that is the newest of the tenant that took more than its share while it was alone, from its lowest tier, if that
        is not above this one; otherwise the newest of the lowest tier, if that is below this one. A tenant at its share
        makes room among its own tickets of lower tiers.
        """
        invariant(ticket.id not in self._tickets, "a ticket waits once")
        invariant(ticket.weight >= 1 and ticket.work >= 0, "a ticket has a weight and no negative work")
        self._sweep(now_s)
        displaced = self._make_room(ticket, now_s)
        if not self._tickets:
            self._drain.begin(now_s)
        self._tickets[ticket.id] = ticket
        self._tiers[ticket.tier].push(ticket)
        self._deadlines.place(ticket.id, ticket.deadline_s)
        self._hold(ticket.tenant, 1)
        return displaced

    def pop(self, now_s: float) -> Ticket | None:
        """The next ticket, its tenant charged with the estimate, or None when nobody waits.

        Whoever gets it calls `correct` for it, once, whatever becomes of the request.
        """
        self._sweep(now_s)
        tier = self._turn()
        if tier is None:
            return None
        ticket = self._tiers[tier].pop()
        self._left(ticket)
        self._drain.dispatched(now_s)
        return ticket

    def remove(self, ticket_id: str) -> Ticket | None:
        """Take out the ticket of a client that hung up; None when it does not wait (any more)."""
        ticket = self._tickets.get(ticket_id)
        if ticket is not None:
            self._take_out(ticket)
        return ticket

    def expire(self, now_s: float) -> list[Ticket]:
        """The tickets whose deadline has come, out of the queue now; until they are fetched they take up room."""
        self._sweep(now_s)
        expired, self._expired = self._expired, []
        return expired

    def correct(self, ticket: Ticket, real_work: int) -> None:
        """Count for a popped ticket what it really cost, 0 if it never ran, in place of its estimate."""
        invariant(real_work >= 0, "nobody works less than nothing")
        self._tiers[ticket.tier].correct(ticket, real_work)

    def position(self, ticket_id: str) -> int | None:
        """About which place from the front a ticket has, 1 being the next; None when it does not wait.

        Costs as much as its tenant has tickets before it: for people who look, not for the hot path.
        """
        ticket = self._tickets.get(ticket_id)
        if ticket is None:
            return None
        above = sum(len(self._tiers[tier]) for tier in TIERS[: TIERS.index(ticket.tier)])
        return above + self._tiers[ticket.tier].position(ticket) + 1

    def retry_after_s(self, now_s: float) -> float:
        """In how many seconds those who wait now will be gone at the measured rate: 1 to 60, and 60 if none is known"""
        if not self._tickets:
            return _LEAST_RETRY_S
        seconds = self._drain.seconds_for(len(self._tickets), now_s)
        return _MOST_RETRY_S if seconds is None else min(_MOST_RETRY_S, max(_LEAST_RETRY_S, seconds))

    def _turn(self) -> Tier | None:
        waiting: list[Tier] = [tier for tier in TIERS if self._tiers[tier]]
        if not waiting:
            return None
        chosen = max(waiting, key=lambda tier: max(_PATIENCE - 1, self._passed_over[tier]))
        for tier in TIERS:
            self._passed_over[tier] = self._passed_over[tier] + 1 if tier in waiting and tier != chosen else 0
        return chosen

    def _make_room(self, ticket: Ticket, now_s: float) -> Ticket | None:
        held = self._held.get(ticket.tenant, 0)
        if held >= self.per_tenant and len(self._tickets) > held:
            victim = self._newest_of(ticket.tenant, _below(ticket.tier))
        elif len(self._tickets) + len(self._expired) < self.capacity:
            return None
        else:
            victim = self._newest_that_crowds(ticket) or self._newest(_below(ticket.tier))
        if victim is None:
            raise queue_full(self.retry_after_s(now_s))
        self._take_out(victim)
        return victim

    def _newest_that_crowds(self, ticket: Ticket) -> Ticket | None:
        if self._crowding is None or self._crowding == ticket.tenant:
            return None
        return self._newest_of(self._crowding, (*_below(ticket.tier), ticket.tier))

    def _newest_of(self, tenant: str, tiers: tuple[Tier, ...]) -> Ticket | None:
        return next((found for tier in tiers if (found := self._tiers[tier].newest_of(tenant))), None)

    def _newest(self, tiers: tuple[Tier, ...]) -> Ticket | None:
        return next((found for tier in tiers if (found := self._tiers[tier].newest())), None)

    def _sweep(self, now_s: float) -> None:
        while (ticket_id := self._deadlines.first()) is not None:
            ticket = self._tickets[ticket_id]
            if ticket.deadline_s > now_s:
                return
            self._take_out(ticket)
            self._expired.append(ticket)

    def _take_out(self, ticket: Ticket) -> None:
        self._tiers[ticket.tier].discard(ticket)
        self._left(ticket)

    def _left(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        self._deadlines.drop(ticket.id)
        self._hold(ticket.tenant, -1)

    def _hold(self, tenant: str, change: int) -> None:
        held = self._held.get(tenant, 0) + change
        if held > self.per_tenant:
            self._crowding = tenant
        elif self._crowding == tenant:
            self._crowding = None
        if held:
            self._held[tenant] = held
        else:
            self._held.pop(tenant, None)


def _below(tier: Tier) -> tuple[Tier, ...]:
    return TIERS[: TIERS.index(tier) : -1]
