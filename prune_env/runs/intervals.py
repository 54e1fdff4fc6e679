"""Means over seeds with their bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
"""Bootstrap samples of the seeds."""

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % bootstrap interval; without one for a single seed."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of one value a seed."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, None, None)
        low, high = bands(np.array(values)[:, None])
        return cls(mean, float(low[0]), float(high[0]))

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{100 * self.mean:.2f}"
        return f"{100 * self.mean:.2f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def bands(values: Curve) -> tuple[Curve, Curve]:
    """Ends of the 95 % percentile bootstrap interval of the mean over seeds.

    Args:
        values: [seeds, points].

    Returns:
        The lower and the upper end, [points] each.
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    weights = np.stack([np.bincount(row, minlength=len(values)) for row in drawn]) / len(values)
    low, high = np.quantile(weights @ values, (0.025, 0.975), axis=0)
    return low, high
