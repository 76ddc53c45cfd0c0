"""Which model a name means, through a cache of one second; a name that is not known is looked up again each time."""

from collections.abc import Awaitable, Callable

from galerne.kernel import Clock, FreshCache, NotFound, Reader
from galerne.models import Model, find_model_script

__all__ = ["MOST_MODELS", "Catalogue", "model_reader"]

MOST_MODELS = 1_000
"""How many names of models are at hand: 1.3 kB each, beside what their descriptions hold."""

_STALENESS_S = 1.0


def model_reader(reader: Reader) -> Callable[[str], Awaitable[Model]]:
    """A function that finds a model; `Unavailable` (503) when the database is down."""
    return lambda name: reader.run(find_model_script(name))


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
