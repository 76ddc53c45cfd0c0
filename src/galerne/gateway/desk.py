"""What the next commit does besides settling: leases asked for and given back, and progress of long streams."""

from collections.abc import Sequence

from galerne.gateway.flights import FlightFile, FlightSlot
from galerne.gateway.metrics import GatewayMetrics
from galerne.gateway.progress import Progress
from galerne.gateway.reservations import Answers, Orders, Reservations
from galerne.kernel import Clock, later

__all__ = ["GatewayDesk"]

_MOST_AT_ONCE = 32
_PAUSE_S = 0.02


class GatewayDesk:
    """The `Desk` of a running gateway."""

    def __init__(
        self, holder: str, reservations: Reservations, flights: FlightFile, clock: Clock, metrics: GatewayMetrics
    ) -> None:
        self._holder = holder
        self._reservations = reservations
        self._flights = flights
        self._clock = clock
        self._metrics = metrics
        self._ticked = False
        self._told: list[FlightSlot] = []
        self._due: list[FlightSlot] = []

    def set_outage(self, outage: bool) -> None:
        """The database is away, or is back."""
        self._reservations.outage = outage

    def tick(self) -> None:
        """About once a second: have the next commits look for what is due."""
        self._due = list(self._flights.long_flights(self._clock.monotonic()))
        self._go_on()

    def _go_on(self) -> None:
        self._ticked = True
        self._reservations.tick()

    def orders(self) -> Orders | None:
        """What reservations ask for."""
        return self._reservations.orders()

    def progress(self) -> Sequence[Progress]:
        """What long streams have delivered since the last tick, a few at a time: nothing else runs meanwhile."""
        if not self._ticked:
            return ()
        self._ticked = False
        self._told, self._due = self._due[:_MOST_AT_ONCE], self._due[_MOST_AT_ONCE:]
        if self._due:
            later(_PAUSE_S, self._go_on)
        found = (slot.progress(self._holder) for slot in self._told)
        return [each for each in found if each is not None]

    def done(self, orders: Orders, answers: Answers) -> None:
        """The orders were carried out."""
        self._told = []
        self._reservations.done(orders, answers)

    def failed(self, orders: Orders) -> None:
        """The orders were not carried out, nor was progress written."""
        for slot in self._told:
            slot.untold()
        self._told = []
        self._reservations.failed(orders)

    def committed(self, size: int, seconds: float) -> None:
        """A commit of so many requests took so long."""
        self._metrics.committed(size, seconds)

    def end(self) -> Orders:
        """Everything given back."""
        return self._reservations.end()
