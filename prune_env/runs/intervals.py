"""Means over seeds with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
"""Bootstrap samples of the seeds."""

BATCH = 500
"""Bootstrap samples per batch, so that long curves of many seeds fit into memory."""

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % bootstrap interval; a single seed has no interval."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """The interval of the mean of ``values``, one per seed."""
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
    """The 95 % percentile bootstrap interval of the mean over seeds.

    Args:
        values: [seeds, points].

    Returns:
        The lower and the upper end, [points] each; for a single seed, both are its values.
    """
    if len(values) == 1:
        return values[0], values[0]
    from scipy.stats import bootstrap  # here, because the import takes a second

    interval = bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=BATCH, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return interval.low, interval.high
