"""The numbers that charts need: Pareto fronts, and where an axis ends."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite

import numpy as np

from prune_env.report.charts.style import Row


def pareto_front(points: Iterable[Row], cost: str) -> list[Row]:
    """The points that no other point beats in quality at the same or a lower cost, by rising cost.

    Points without this cost or without a quality are left out.
    """
    known = [point for point in points if point.get(cost) is not None and point.get("quality") is not None]
    best, chosen = -inf, []
    for point in sorted(known, key=lambda point: (point[cost], -point["quality"])):
        if point["quality"] > best:
            best = point["quality"]
            chosen.append(point)
    return chosen


def lower_end(values: Sequence[float], shown: Iterable[float] = ()) -> float | None:
    """The lower end of an axis on which a few very bad values would squeeze the others; None for the values' own.

    Args:
        values: The values, such as the rewards of a search.
        shown: Values that must be seen, such as the best of each rival.
    """
    known = [value for value in values if isfinite(value)]
    if len(known) < 20:
        return None
    low, middle, high = np.quantile(known, (0.0, 0.5, 1.0))
    floor = high - max(3.0 * (high - middle), 0.25 * (high - low))
    floor = min([floor, *(value - 0.05 * (high - low) for value in shown if isfinite(value))])
    return float(floor) if low < floor else None
