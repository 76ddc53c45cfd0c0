"""A seeded simulation of tenants, a waiting queue and replicas with slots, in which a second takes no time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random

from galerne.gateway.fairness import FairQueue, Ticket, Tier, work
from galerne.kernel import RateLimited

INPUT_S_PER_TOKEN = 0.0002
OUTPUT_S_PER_TOKEN = 0.01


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one tenant asks for: `outstanding` requests at a time, the next as soon as one is done, or `per_s` at random
    moments. `guess` is by how much its work is estimated too high (or, below 1, too low).
    """

    tenant: str
    weight: int = 1
    tier: Tier = "standard"
    input_tokens: tuple[int, int] = (50, 150)
    output_tokens: tuple[int, int] = (50, 150)
    outstanding: int = 0
    per_s: float = 0.0
    start_s: float = 0.0
    stop_s: float = float("inf")
    guess: float = 1.0
    patience_s: float = 1e9


@dataclass(frozen=True)
class Asked:
    ticket: Ticket
    demand: Demand
    input_tokens: int
    output_tokens: int

    @property
    def work(self) -> int:
        return work(self.input_tokens, self.output_tokens)


@dataclass(frozen=True)
class Served:
    asked: Asked
    started_s: float
    writing_s: float
    ended_s: float

    @property
    def tenant(self) -> str:
        return self.asked.ticket.tenant

    @property
    def waited_s(self) -> float:
        return self.started_s - self.asked.ticket.arrived_s

    @property
    def latency_s(self) -> float:
        return self.ended_s - self.asked.ticket.arrived_s


@dataclass
class Simulation:
    """Runs `demands` against replicas (`speeds`: one figure each, 1 being the usual one) of `slots` each."""

    demands: Sequence[Demand]
    seed: int
    queue: FairQueue = field(default_factory=lambda: FairQueue(1_000, 1.0))
    slots: int = 4
    speeds: tuple[float, ...] = (1.0, 1.0)
    served: list[Served] = field(default_factory=list)
    refused: list[Ticket] = field(default_factory=list)
    displaced: list[Ticket] = field(default_factory=list)
    expired: list[Ticket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._serial = count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._free = [self.slots] * len(self.speeds)
        self._asked: dict[str, Asked] = {}

    def run(self, until_s: float) -> "Simulation":
        for demand in self.demands:
            for _ in range(demand.outstanding):
                self._at(demand.start_s, lambda now_s, demand=demand: self._ask(demand, now_s))
            if demand.per_s:
                self._at(self._next_s(demand, demand.start_s), lambda now_s, demand=demand: self._arrive(demand, now_s))
        while self._events and self._events[0][0] <= until_s:
            now_s, _, act = heappop(self._events)
            act(now_s)
            self.expired += self.queue.expire(now_s)
            self._dispatch(now_s)
        return self

    def of(self, tenant: str, from_s: float = 0.0, to_s: float = float("inf")) -> list[Served]:
        """What was started for `tenant` within these times."""
        return [one for one in self.served if one.tenant == tenant and from_s <= one.started_s < to_s]

    def work_of(self, tenant: str, from_s: float = 0.0, to_s: float = float("inf")) -> int:
        return sum(one.asked.work for one in self.of(tenant, from_s, to_s))

    def widest_gap(self, one: str, other: str) -> float:
        """The greatest difference, over all intervals of the run, between the work that the two were delivered: input
        when it is started, output as it is written.
        """
        steps: list[tuple[float, float, float]] = []
        for served in self.served:
            sign = (served.tenant == one) - (served.tenant == other)
            per_s = sign * work(0, served.asked.output_tokens) / max(1e-9, served.ended_s - served.writing_s)
            steps.append((served.started_s, sign * work(served.asked.input_tokens, 0), 0.0))
            steps.append((served.writing_s, 0.0, per_s))
            steps.append((served.ended_s, 0.0, -per_s))
        level = rate = at_s = least = most = 0.0
        for moment_s, jump, change in sorted(steps):
            for grown in (rate * (moment_s - at_s), jump):
                level += grown
                least, most = min(least, level), max(most, level)
            rate, at_s = rate + change, moment_s
        return most - least

    def _at(self, moment_s: float, act: Callable[[float], None]) -> None:
        heappush(self._events, (moment_s, next(self._serial), act))

    def _next_s(self, demand: Demand, now_s: float) -> float:
        return now_s + self._random.expovariate(demand.per_s)

    def _arrive(self, demand: Demand, now_s: float) -> None:
        self._ask(demand, now_s)
        self._at(self._next_s(demand, now_s), lambda later_s: self._arrive(demand, later_s))

    def _ask(self, demand: Demand, now_s: float) -> None:
        if now_s >= demand.stop_s:
            return
        tokens = self._random.randint(*demand.input_tokens), self._random.randint(*demand.output_tokens)
        ticket = Ticket(
            id=f"{demand.tenant}-{next(self._serial)}",
            tenant=demand.tenant,
            weight=demand.weight,
            tier=demand.tier,
            work=round(work(*tokens) * demand.guess),
            arrived_s=now_s,
            deadline_s=now_s + demand.patience_s,
        )
        self._asked[ticket.id] = Asked(ticket, demand, *tokens)
        try:
            displaced = self.queue.push(ticket, now_s)
        except RateLimited:
            self.refused.append(ticket)
        else:
            self.displaced += [displaced] if displaced is not None else []

    def _dispatch(self, now_s: float) -> None:
        while max(self._free) > 0 and (ticket := self.queue.pop(now_s)) is not None:
            asked = self._asked.pop(ticket.id)
            replica = max(range(len(self._free)), key=self._free.__getitem__)
            self._free[replica] -= 1
            writing_s = now_s + asked.input_tokens * INPUT_S_PER_TOKEN / self.speeds[replica]
            ended_s = writing_s + asked.output_tokens * OUTPUT_S_PER_TOKEN / self.speeds[replica]
            self.served.append(Served(asked, now_s, writing_s, ended_s))
            self._at(ended_s, lambda later_s, asked=asked, replica=replica: self._end(asked, replica, later_s))

    def _end(self, asked: Asked, replica: int, now_s: float) -> None:
        self._free[replica] += 1
        self.queue.correct(asked.ticket, asked.work)
        if asked.demand.outstanding:
            self._ask(asked.demand, now_s)
