"""What Prometheus is told of duties: any server tells it of all workers, for it is read from the database."""

import asyncio
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy.exc import SQLAlchemyError

from galerne.kernel import Database
from galerne.kernel.duties import DutyState, duty_states

_PATIENCE_S = 2.0


class DutyFigures:
    """A collector over how duties stand."""

    def __init__(self, states: Sequence[DutyState]) -> None:
        self._states = states

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Each figure with the label `duty`."""
        succeeded = _gauge("succeeded_timestamp_seconds", "When a duty was last done without trouble.")
        due = _gauge("due_timestamp_seconds", "When a duty is due next; long past, nobody does it.")
        failures = _gauge("failures", "How many runs of a duty in a row went wrong.")
        took = _gauge("took_seconds", "How long the last run of a duty took.")
        for state in self._states:
            if state.succeeded_at is not None:
                succeeded.add_metric([state.name], state.succeeded_at.timestamp())
            due.add_metric([state.name], state.due_at.timestamp())
            failures.add_metric([state.name], state.failures)
            took.add_metric([state.name], state.took_ms / 1000)
        return [succeeded, due, failures, took]


async def duty_figures(database: Database) -> bytes:
    """The figures as text; nothing while the database does not answer, or before any worker ran."""
    # Left to itself when nothing comes: what hangs can hang in its cancellation too.
    asked = asyncio.create_task(_ask(database))
    if not (await asyncio.wait((asked,), timeout=_PATIENCE_S))[0]:
        return b""
    registry = CollectorRegistry()
    registry.register(DutyFigures(asked.result()))
    return generate_latest(registry) if asked.result() else b""


async def _ask(database: Database) -> list[DutyState]:
    try:
        async with database.reading() as session:
            return await duty_states(session)
    except (SQLAlchemyError, OSError):
        return []


def _gauge(name: str, about: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"galerne_duty_{name}", about, labels=["duty"])
