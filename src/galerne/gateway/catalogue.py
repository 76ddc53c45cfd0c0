"""Which model a name means, through a cache of one second; a name that is not known is looked up again each time."""

from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from galerne.kernel import Clock, Database, FreshCache, NotFound, Unavailable
from galerne.models import Model, find_model

__all__ = ["MOST_MODELS", "Catalogue", "model_reader"]

MOST_MODELS = 1_000
"""How many names of models are at hand: 1.3 kB each, beside what their descriptions hold."""

_STALENESS_S = 1.0


def model_reader(database: Database) -> Callable[[str], Awaitable[Model]]:
    """A function that finds a model in a transaction of its own; `Unavailable` (503) when the database is down."""

    async def read(name: str) -> Model:
        try:
            async with database.reading() as session:
                return await find_model(session, name)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise Unavailable(
                "The catalogue cannot be read at the moment.", code="database_unavailable", retry_after_s=1
            ) from error

    return read


class Catalogue:
    """Models by id or alias."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[Model]],
        clock: Clock,
        *,
        outage_s: float = 0.0,
        capacity: int = MOST_MODELS,
    ) -> None:
        self._models: FreshCache[str, str, Model] = FreshCache(
            read, clock, staleness_s=_STALENESS_S, refusal_s=0.0, capacity=capacity, outage_s=outage_s
        )

    async def find(self, name: str) -> Model:
        """The model that `name` means; `NotFound` (404, `model_not_found`)."""
        if not name.isprintable():  # a database may refuse control characters with an error of its own
            raise NotFound("The model does not exist.", code="model_not_found", param="model")
        return await self._models.get(name, name)
