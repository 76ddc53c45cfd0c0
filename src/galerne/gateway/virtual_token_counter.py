"""The order of those who wait within one tier: fair by work done, over tenants (the virtual token counter).

After Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): every tenant has a counter that grows by
work / weight, the waiting tenant with the smallest counter is next, and one that had nothing waiting is lifted to the
counter of those who had, so that idling saves nothing up. Differences to the paper: a request is charged its estimate
when it is dispatched, for a gateway does not see the engine's batch, and the real work takes the estimate's place when
it is known. So a counter has two parts, work that is known and estimates in flight. Only the known part is lifted, and
only to the known part of others: an estimate that was too high then leaves no credit behind when it is given back, and
a newcomer does not queue up behind what somebody else merely reserved.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from galerne.gateway.ranking import Ranking
from galerne.gateway.tickets import Ticket
from galerne.kernel import invariant

__all__ = ["VirtualTokenCounter"]

_MICRO = 1_000_000  # counters are integers of millionths, so that dividing by a weight loses nothing that matters


@dataclass(slots=True, eq=False)
class _Tenant:
    line: OrderedDict[str, Ticket] = field(default_factory=OrderedDict[str, Ticket])
    known_micro: int = 0
    estimated_micro: int = 0
    dispatched: int = 0


class VirtualTokenCounter:
    """The waiting tickets of one tier, and what each of their tenants was served.

    Of tenants that neither wait nor are being served, those are forgotten that a return would lift anyhow, and beyond
    `remembered` of them also the one with the smallest counter; newcomers are then lifted to where it was.
    """

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self._tenants: dict[str, _Tenant] = {}
        self._waiting: Ranking[str] = Ranking()
        self._idle: Ranking[str] = Ranking()
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()
        self._last = _Tenant()
        self._floor_micro = 0

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def tenants(self) -> int:
        """How many tenants are known: those that wait, are being served, or were served more than others."""
        return len(self._tenants)

    def push(self, ticket: Ticket) -> None:
        """Let `ticket` wait behind those of its tenant."""
        name = ticket.tenant
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant()
        if not tenant.line:
            self._raise_floor()
            tenant.known_micro = max(tenant.known_micro, self._floor_micro)
            self._idle.drop(name)
            self._waiting.place(name, tenant.known_micro + tenant.estimated_micro)
        tenant.line[ticket.id] = self._tickets[ticket.id] = ticket

    def pop(self) -> Ticket:
        """The first ticket of the tenant with the smallest counter, charged with its estimate; one must be waiting."""
        invariant(len(self._tickets) > 0, "somebody waits")
        name = self._waiting.first() or ""
        tenant = self._tenants[name]
        ticket = next(iter(tenant.line.values()))
        self._last = tenant
        tenant.estimated_micro += _charge_micro(ticket.work, ticket.weight)
        tenant.dispatched += 1
        self._leave(tenant, ticket)
        self._rank(name, tenant)
        return ticket

    def discard(self, ticket: Ticket) -> None:
        """Take a waiting ticket out; its tenant pays nothing."""
        tenant = self._tenants[ticket.tenant]
        self._leave(tenant, ticket)
        if not tenant.line:
            self._rank(ticket.tenant, tenant)

    def correct(self, ticket: Ticket, real_work: int) -> None:
        """Put the real work in the estimate's place, for a ticket that was popped; exactly once for each of them."""
        tenant = self._tenants.get(ticket.tenant)
        invariant(tenant is not None and tenant.dispatched > 0, "a correction belongs to a request in flight")
        if tenant is not None:
            tenant.dispatched -= 1
            tenant.estimated_micro -= _charge_micro(ticket.work, ticket.weight)
            tenant.known_micro += _charge_micro(real_work, ticket.weight)
            self._rank(ticket.tenant, tenant)

    def position(self, ticket: Ticket) -> int:
        """About how many tickets of this tier go first: as if all tenants had one weight and all requests one size."""
        line = self._tenants[ticket.tenant].line
        before = 0
        for ticket_id in line:
            if ticket_id == ticket.id:
                break
            before += 1
        return before + min(len(self._tickets) - len(line), (before + 1) * (len(self._waiting) - 1))

    def newest(self) -> Ticket | None:
        """The ticket that came last, whoever's it is."""
        return next(reversed(self._tickets.values()), None)

    def newest_of(self, tenant: str) -> Ticket | None:
        """The ticket of `tenant` that came last."""
        found = self._tenants.get(tenant)
        return next(reversed(found.line.values()), None) if found is not None else None

    def _leave(self, tenant: _Tenant, ticket: Ticket) -> None:
        del tenant.line[ticket.id], self._tickets[ticket.id]

    def _rank(self, name: str, tenant: _Tenant) -> None:
        if tenant.line:
            self._waiting.place(name, tenant.known_micro + tenant.estimated_micro)
            return
        self._waiting.drop(name)
        if not tenant.dispatched:
            self._idle.place(name, tenant.known_micro)
            self._forget()

    def _raise_floor(self) -> None:
        first = self._waiting.first()
        level = self._tenants[first] if first is not None else self._last
        self._floor_micro = max(self._floor_micro, level.known_micro)

    def _forget(self) -> None:
        while (name := self._idle.first()) is not None:
            known_micro = self._tenants[name].known_micro
            if known_micro > self._floor_micro and len(self._idle) <= self._remembered:
                return
            self._floor_micro = max(self._floor_micro, known_micro)
            self._idle.drop(name)
            del self._tenants[name]


def _charge_micro(work: int, weight: int) -> int:
    return max(1, work) * _MICRO // weight
