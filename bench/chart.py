"""A line of figures as text: one column for a stretch of samples, a scale on the left."""

from collections.abc import Sequence
from itertools import pairwise

_MARK, _EMPTY = "●", "·"


def chart(values: Sequence[float], *, width: int = 60, height: int = 8) -> str:
    """The means of at most `width` stretches of `values`, `height` rows between the least and the greatest of them.

    ValueError for no values. What hardly moves is drawn on a scale of 1, so that noise does not look like growth.
    """
    if not values:
        raise ValueError("there is nothing to draw")
    columns = min(width, len(values))
    edges = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    least, span = min(means), max(1.0, max(means) - min(means))
    rows = [round((each - least) / span * (height - 1)) for each in means]
    return "\n".join(
        f"{least + span * row / (height - 1):8.1f} {''.join(_MARK if at == row else _EMPTY for at in rows)}"
        for row in range(height - 1, -1, -1)
    )
