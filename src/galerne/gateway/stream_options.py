"""What to ask of engines for their token counts, and for a while what each of them refused; pure, but for its clock."""

from collections import OrderedDict
from typing import Any

from galerne.kernel import Clock

__all__ = ["LEAST", "RefusedOptions", "with_options"]

# Most to least; an engine that refuses one is asked for the next.
_LEVELS: tuple[dict[str, bool] | None, ...] = (
    {"include_usage": True, "continuous_usage_stats": True},
    {"include_usage": True},
    None,
)
LEAST = len(_LEVELS) - 1
"""The level at which an engine is asked for no counts at all."""

_REMEMBERED_S = 600.0
_MOST_REMEMBERED = 1_000


class RefusedOptions:
    """The level at which each model is asked, 0 by default; a lower one is forgotten after ten minutes.

    It lowers what everybody's requests to that model ask for, so it is for the caller of `remember` to know that the
    lower level made the difference.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def level(self, model: tuple[str, str]) -> int:
        """The level to begin with, for a model's id and version."""
        level, until_s = self._levels.get(model, (0, 0.0))
        return level if self._clock.monotonic() < until_s else 0

    def remember(self, model: tuple[str, str], level: int) -> None:
        """Ask at `level` for the next ten minutes, for at that level a request succeeded that was refused above it."""
        self._levels[model] = (level, self._clock.monotonic() + _REMEMBERED_S)
        self._levels.move_to_end(model)
        while len(self._levels) > _MOST_REMEMBERED:
            self._levels.popitem(last=False)


def with_options(body: dict[str, Any], level: int) -> dict[str, Any]:
    """`body` asking at `level`; unchanged at 0 and where it asks for nothing, as embeddings do."""
    if level == 0 or "stream_options" not in body:
        return body
    changed = {name: value for name, value in body.items() if name != "stream_options"}
    options = _LEVELS[level]
    return changed if options is None else {**changed, "stream_options": options}
